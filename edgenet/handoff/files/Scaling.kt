
    private const val BITS = 22 // of the weights' fraction: Pillow's 32 - 8 - 2

    private class Taps(val first: IntArray, val weights: Array<IntArray>)

    private fun scaled(seen: IntArray, rows: Int, columns: Int): IntArray {
        val across = taps(columns, WIDTH_PX)
        val narrow = IntArray(rows * WIDTH_PX) // scaled along x
        for (y in 0 until rows) {
            for (x in 0 until WIDTH_PX) {
                narrow[y * WIDTH_PX + x] = blend(seen, y * columns + across.first[x], 1, across.weights[x])
            }
        }
        val down = taps(rows, HEIGHT_PX)
        return IntArray(HEIGHT_PX * WIDTH_PX) {
            val y = it / WIDTH_PX
            blend(narrow, down.first[y] * WIDTH_PX + it % WIDTH_PX, WIDTH_PX, down.weights[y])
        }
    }

    private fun blend(pixels: IntArray, start: Int, step: Int, weights: IntArray): Int {
        var red = 1 shl (BITS - 1)
        var green = red
        var blue = red
        for (i in weights.indices) {
            val pixel = pixels[start + i * step]
            red += ((pixel shr 16) and 0xFF) * weights[i]
            green += ((pixel shr 8) and 0xFF) * weights[i]
            blue += (pixel and 0xFF) * weights[i]
        }
        return (0xFF shl 24) or (eightBits(red) shl 16) or (eightBits(green) shl 8) or eightBits(blue)
    }

    private fun eightBits(sum: Int): Int = (sum shr BITS).coerceIn(0, 255)

    private fun taps(from: Int, to: Int): Taps {
        val scale = from.toDouble() / to
        val stretch = maxOf(scale, 1.0) // when it shrinks a picture, the kernel grows with it
        val reach = {{ {"bilinear": "1.0", "bicubic": "2.0", "lanczos": "3.0"}[interpolation] }} * stretch
        val first = IntArray(to)
        val weights = Array(to) { i ->
            val centre = (i + 0.5) * scale
            val start = maxOf((centre - reach + 0.5).toInt(), 0)
            val end = minOf((centre + reach + 0.5).toInt(), from)
            val real = DoubleArray(end - start) { kernel((it + start - centre + 0.5) * (1.0 / stretch)) }
            val sum = real.sum()
            first[i] = start
            IntArray(real.size) {
                val fixed = real[it] / sum * (1 shl BITS)
                (if (fixed < 0) fixed - 0.5 else fixed + 0.5).toInt()
            }
        }
        return Taps(first, weights)
    }

    private fun kernel(at: Double): Double {
        val x = Math.abs(at)
        {% if interpolation == "bilinear" %}
        return if (x < 1.0) 1.0 - x else 0.0
        {% elif interpolation == "bicubic" %}
        return when {
            x < 1.0 -> (1.5 * x - 2.5) * x * x + 1.0
            x < 2.0 -> (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
            else -> 0.0
        }
        {% else %}
        if (x == 0.0) return 1.0
        val a = x * Math.PI
        val b = x / 3.0 * Math.PI
        return if (x < 3.0) Math.sin(a) / a * (Math.sin(b) / b) else 0.0
        {% endif %}
    }
