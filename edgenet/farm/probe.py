"""A program that is sent to a worker as it stands, where edgenet may be missing: the standard library, no more."""


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages, and of Python; "" for what is not installed."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
