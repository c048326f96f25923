package edgenet.classifier

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * What {{MODEL}} takes: the numbers of the file itself, the pixels of its evaluation.
 *
 * Needs nothing of Android. A picture is an IntArray of packed 0xAARRGGBB pixels, row by row, as Bitmap.getPixels gives
 * it; alpha is ignored. It has to stand upright already: BitmapFactory does not turn by EXIF.
 */
object Preprocessing {
    const val SIZE_PX = {{SIZE}}
    /** The centre square of SIZE / (SIZE + this) of the short side is what the model sees. */
    const val CROP_PADDING_PX = {{CROP}}
{{NORMALISATION}}
    /** Crop and scale a picture: SIZE_PX x SIZE_PX pixels. {{INTERPOLATION}} with 8-bit steps, bit for bit Pillow's. */
    fun pixels(argb: IntArray, width: Int, height: Int): IntArray {
        val short = minOf(width, height)
        val side = maxOf(1, (SIZE_PX.toDouble() / (SIZE_PX + CROP_PADDING_PX) * short).toInt())
        val left = (width - side + 1) / 2
        val top = (height - side + 1) / 2
        val square = IntArray(side * side) { argb[(top + it / side) * width + left + it % side] }
        return if (side == SIZE_PX) square else scaled(square, side)
    }

    /** What the model's input tensor holds for SIZE_PX x SIZE_PX pixels, NHWC. */
    fun input(pixels: IntArray): ByteBuffer {
        val out = ByteBuffer.allocateDirect(SIZE_PX * SIZE_PX * 3 * {{INPUT_BYTES}}).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            for (c in 0..2) {
                {{PUT}}
            }
        }
        out.rewind()
        return out
    }

    /** Channel c of a pixel, 0..255, in the model's order: {{ORDER}}. */
    private fun channel(pixel: Int, c: Int): Int = (pixel shr {{SHIFT}}) and 0xFF
{{SCALING}}}
