
    private fun scaled(square: IntArray, side: Int): IntArray {
        val scale = side.toDouble() / SIZE_PX
        val at = IntArray(SIZE_PX) { ((it + 0.5) * scale).toInt() }
        return IntArray(SIZE_PX * SIZE_PX) { square[at[it / SIZE_PX] * side + at[it % SIZE_PX]] }
    }
