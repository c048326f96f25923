package edgenet.classifier

import android.content.Context
import android.graphics.Bitmap
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter

/** {{ asset }} by LiteRT's Interpreter, on the CPU. Not for several threads at once. */
class LiteRtClassifier(context: Context, threads: Int = 2) : Closeable {
{% if n_labels %}
    /** {{ labels_are }} */
    val labels: List<String> = context.assets.open(LABELS).bufferedReader().use { it.readLines() }

{% endif %}
    private val interpreter = Interpreter(mapped(context), Interpreter.Options().setNumThreads(threads))
    private val output = ByteBuffer.allocateDirect(CLASSES * {{ output_bytes }}).order(ByteOrder.nativeOrder())

    /** {{ scores_are }}, for an upright picture of any size. */
    fun classify(picture: Bitmap): FloatArray = run(Preprocessing.input(Preprocessing.pixels(picture)))

    /** The same for what [Preprocessing.input] makes. */
    fun run(input: ByteBuffer): FloatArray {
        output.rewind()
        interpreter.run(input, output)
        output.rewind()
        {% if output_dtype == "float32" %}
        return FloatArray(CLASSES) { output.getFloat() }
        {% elif output_dtype == "uint8" %}
        return FloatArray(CLASSES) { ((output.get().toInt() and 0xFF) - {{ output_zero_point }}) * {{ output_scale }} }
        {% else %}
        return FloatArray(CLASSES) { (output.get().toInt() - {{ output_zero_point }}) * {{ output_scale }} }
        {% endif %}
    }

    override fun close() = interpreter.close()

    companion object {
        const val MODEL = "{{ asset }}"
{% if n_labels %}
        const val LABELS = "labels.txt"
{% endif %}
{% if threshold %}
        /** A score above it says yes. */
        const val THRESHOLD = {{ threshold }}
{% endif %}
        const val CLASSES = {{ n_classes }}

        // A mapped file stays in the page cache and is not copied; noCompress in build.gradle.kts makes it possible.
        private fun mapped(context: Context): ByteBuffer = context.assets.openFd(MODEL).use { fd ->
            FileInputStream(fd.fileDescriptor).channel.use {
                it.map(FileChannel.MapMode.READ_ONLY, fd.startOffset, fd.declaredLength)
            }
        }
    }
}
