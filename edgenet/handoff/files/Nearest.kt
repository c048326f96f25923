
    private fun scaled(seen: IntArray, rows: Int, columns: Int): IntArray {
        val down = nearest(rows, HEIGHT_PX)
        val across = nearest(columns, WIDTH_PX)
        return IntArray(HEIGHT_PX * WIDTH_PX) { seen[down[it / WIDTH_PX] * columns + across[it % WIDTH_PX]] }
    }

    private fun nearest(from: Int, to: Int): IntArray {
        val step = from.toDouble() / to
        var next = 0.5 * step // added up, not multiplied: where Pillow rounds, so does this
        return IntArray(to) { next.toInt().also { next += step } }
    }
