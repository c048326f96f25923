"""The codes of results.Warning, which stay the same from version to version; docs/results.md lists them."""

# Code -> what the warning says; after a semicolon, what its `value` is.
WARNINGS = {
    # of an evaluation
    "no-labels": "no picture has a label",
    "class-map": "folders stand for several classes, each of which is right; how many such folders",
    "8-bit-output": "the output has 8 bits, so ties are broken by index",
    "nonfinite-outputs": "answers of NaN or infinity, which count as wrong; pictures that got one",
    # of a file's runs
    "not-settled": "the rate had not settled after the warm-up; seconds of warm-up",
    "few-runs": "fewer runs than planned; runs made",
    "noisy": "the middle half of the runs spreads widely; its width, a fraction of the median",
    "disturbed": "many runs are set aside; their fraction",
    "rarely-undisturbed": "the least disturbed runs count",
    "drift": "slower or faster from the first round to the last; the change, a fraction, below 0 where faster",
    "dependent-runs": "runs resemble each other; independent runs that they are worth",
    "cannot-tell": "cannot be told from another file; the ratio of the medians, null where the device gives none",
    "batch": "the file takes several pictures at once; how many",
    "samples-are-calls": "a sample is the mean or median of a call of several runs; runs a call",
    "delegation": "what a delegate left to the CPU",
    # of the machine
    "noise-floor": "the first file differs from itself; by what fraction",
    "too-many-threads": "more threads than cores; threads",
    "busy": "other programs used cores; how many",
    "stolen": "the hypervisor took cores away; how many",
    "loaded": "the load average at the start; it",
    "governor": "the CPU governor lets the clock change",
    "changed": "the machine was set otherwise while it was measured",
    "clock-fell": "the clock fell while it was measured; MHz in the end",
    "hot": "the CPU was hot; degrees Celsius",
    "under-voltage": "the board reported under-voltage",
    "throttled": "the board or phone throttled; a phone's thermal status",
    "hot-battery": "the battery was hot; degrees Celsius",
    "low-battery": "the battery was low; per cent",
    "battery-saver": "the battery saver was on",
    "capped-clock": "the clock of a core was capped; GHz",
    "device-lost": "the device was lost before its state could be read again",
    "not-pinned": "not pinned to the fast cores",
    "other-abi": "a binary for another ABI than the phone's first was timed",
    # of an estimate
    "nothing-accelerated": "no operator runs on the accelerator",
    "missing-operators": "operators do not run there, and so the file does not; how many",
    "left-to-cpu": "operators run on the CPU, whose time is not in the estimate; how many",
    # of an older results file, where none of these fits
    "note": "a sentence",
}
