package edgenet.classifier

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * What {{ asset }} takes: the numbers of the file itself, the pixels of its evaluation.
 *
 * Needs nothing of Android. A picture is an IntArray of packed 0xAARRGGBB pixels, row by row, as Bitmap.getPixels gives
 * it; alpha is ignored. It has to stand upright already: BitmapFactory does not turn by EXIF.
 */
object Preprocessing {
    const val SIZE_PX = {{ size_px }}
    /** The centre square of SIZE / (SIZE + this) of the short side is what the model sees. */
    const val CROP_PADDING_PX = {{ crop_padding_px }}
{% if input_dtype == "float32" %}
    /** Of the pixels, 0..255, in the order {{ order }}: (pixel - MEAN) / STD. */
    val MEAN = floatArrayOf({{ mean }})
    val STD = floatArrayOf({{ std }})
{% endif %}

    /** Crop and scale a picture: SIZE_PX x SIZE_PX pixels. {{ interpolation | capitalize }} with 8-bit steps, bit for bit Pillow's. */
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
        val out = ByteBuffer.allocateDirect(SIZE_PX * SIZE_PX * 3 * {{ input_bytes }}).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            for (c in 0..2) {
                {% if input_dtype == "float32" %}
                out.putFloat((channel(pixel, c) - MEAN[c]) / STD[c])
                {% elif input_dtype == "uint8" %}
                out.put(channel(pixel, c).toByte())
                {% else %}
                out.put((channel(pixel, c) - 128).toByte())
                {% endif %}
            }
        }
        out.rewind()
        return out
    }

    /** Channel c of a pixel, 0..255, in the model's order: {{ order }}. */
    private fun channel(pixel: Int, c: Int): Int = (pixel shr {{ "(16 - 8 * c)" if order == "RGB" else "(8 * c)" }}) and 0xFF
{% if interpolation == "nearest" %}
{% include "Nearest.kt" %}
{% else %}
{% include "Scaling.kt" %}
{% endif %}
}
