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
    const val HEIGHT_PX = {{ height_px }}
    const val WIDTH_PX = {{ width_px }}
    /** The centre is what the model sees: of the largest part of this shape, SHORT / (SHORT + this), SHORT the short side. */
    const val CROP_PADDING_PX = {{ crop_padding_px }}
{% if input_dtype == "float32" %}
    /** Of the pixels, 0..255, in the order {{ order }}: (pixel - MEAN) / STD. */
    val MEAN = floatArrayOf({{ mean }})
    val STD = floatArrayOf({{ std }})
{% endif %}

    /** Crop and scale a picture{{ ", made grey" if order == "GREY" else "" }}: HEIGHT_PX rows of WIDTH_PX pixels. {{ interpolation | capitalize }} with 8-bit steps, bit for bit Pillow's. */
    fun pixels(argb: IntArray, width: Int, height: Int): IntArray {
        val short = minOf(HEIGHT_PX, WIDTH_PX)
        val kept = short.toDouble() / (short + CROP_PADDING_PX)
        val rows = maxOf(1, (kept * minOf(height.toDouble(), width.toDouble() * HEIGHT_PX / WIDTH_PX)).toInt())
        val columns = maxOf(1, (kept * minOf(width.toDouble(), height.toDouble() * WIDTH_PX / HEIGHT_PX)).toInt())
        val left = (width - columns + 1) / 2
        val top = (height - rows + 1) / 2
        {% if order == "GREY" %}
        val seen = IntArray(rows * columns) { grey(argb[(top + it / columns) * width + left + it % columns]) }
        {% else %}
        val seen = IntArray(rows * columns) { argb[(top + it / columns) * width + left + it % columns] }
        {% endif %}
        return if (rows == HEIGHT_PX && columns == WIDTH_PX) seen else scaled(seen, rows, columns)
    }
{% if order == "GREY" %}

    /** ITU-R 601 luma, as Pillow computes it, in all three colours. */
    private fun grey(pixel: Int): Int {
        val sum = ((pixel shr 16) and 0xFF) * 19595 + ((pixel shr 8) and 0xFF) * 38470 + (pixel and 0xFF) * 7471
        return ((sum + 0x8000) shr 16) * 0x010101 or (0xFF shl 24)
    }
{% endif %}

    /** What the model's input tensor holds for HEIGHT_PX rows of WIDTH_PX pixels, NHWC. */
    fun input(pixels: IntArray): ByteBuffer {
        val out = ByteBuffer.allocateDirect(HEIGHT_PX * WIDTH_PX * {{ channels }} * {{ input_bytes }}).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            for (c in 0 until {{ channels }}) {
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
    private fun channel(pixel: Int, c: Int): Int = (pixel shr {{ "(8 * c)" if order == "BGR" else "(16 - 8 * c)" }}) and 0xFF
{% if interpolation == "nearest" %}
{% include "Nearest.kt" %}
{% else %}
{% include "Scaling.kt" %}
{% endif %}
}
