
    private fun scaled(square: IntArray, side: Int): IntArray {
        val step = side.toDouble() / SIZE_PX
        var next = 0.5 * step // added up, not multiplied: where Pillow rounds, so does this
        val at = IntArray(SIZE_PX) { next.toInt().also { next += step } }
        return IntArray(SIZE_PX * SIZE_PX) { square[at[it / SIZE_PX] * side + at[it % SIZE_PX]] }
    }
