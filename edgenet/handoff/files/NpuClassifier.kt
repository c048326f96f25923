package edgenet.classifier

import android.content.Context
import android.graphics.Bitmap
import android.os.Build
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.BuiltinNpuAcceleratorProvider
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.NpuCompatibilityChecker
import java.io.Closeable
import java.nio.ByteBuffer
import org.json.JSONObject

/**
 * {{ asset }} on the NPU, where npu.json has a compiled file for this phone's chip and its runtime loads it; else on the
 * CPU by [LiteRtClassifier]. Not for several threads at once.
 */
class NpuClassifier(context: Context) : Closeable {
    private val npu: Npu? = compiledFor(context, soc())?.let { open(context, it) }
    private val cpu: LiteRtClassifier? = if (npu == null) LiteRtClassifier(context) else null

    /** Whether the NPU answers. */
    val onNpu: Boolean get() = npu != null

    /** {{ scores_are }}, for an upright picture of any size. */
    fun classify(picture: Bitmap): FloatArray = run(Preprocessing.input(Preprocessing.pixels(picture)))

    /** The same for what [Preprocessing.input] makes. */
    fun run(input: ByteBuffer): FloatArray = npu?.run(input) ?: cpu!!.run(input)

    override fun close() {
        npu?.close()
        cpu?.close()
    }

    private class Npu(private val environment: Environment, private val model: CompiledModel) : Closeable {
        private val inputs = model.createInputBuffers()
        private val outputs = model.createOutputBuffers()

        fun run(input: ByteBuffer): FloatArray {
            val bytes = ByteArray(input.remaining())
            input.get(bytes)
            inputs[0].writeInt8(bytes)
            model.run(inputs, outputs)
            val answer = outputs[0].readInt8()
            {% if output_dtype == "uint8" %}
            return FloatArray(LiteRtClassifier.CLASSES) { ((answer[it].toInt() and 0xFF) - {{ output_zero_point }}) * {{ output_scale }} }
            {% else %}
            return FloatArray(LiteRtClassifier.CLASSES) { (answer[it].toInt() - {{ output_zero_point }}) * {{ output_scale }} }
            {% endif %}
        }

        override fun close() {
            (inputs + outputs).forEach { it.close() }
            model.close()
            environment.close()
        }
    }

    companion object {
        const val PICKS = "npu.json"

        /** The chip as npu.json names it, "" where Android does not tell: before version 12. */
        fun soc(): String = if (Build.VERSION.SDK_INT >= 31) Build.SOC_MODEL.substringBefore('-') else ""

        /** The asset that was compiled for a chip, null where there is none. */
        fun compiledFor(context: Context, soc: String): String? {
            val picks = JSONObject(context.assets.open(PICKS).bufferedReader().use { it.readText() })
            return if (picks.has(soc)) picks.getString(soc) else null
        }

        // npu.json knows the chip already; LiteRT's own list of chips is shorter.
        private object Known : NpuCompatibilityChecker {
            override fun isDeviceSupported(): Boolean = true
        }

        private fun open(context: Context, asset: String): Npu? = try {
            val environment = Environment.create(BuiltinNpuAcceleratorProvider(context, Known))
            try {
                Npu(environment, CompiledModel.create(context.assets, asset, CompiledModel.Options(Accelerator.NPU), environment))
            } catch (e: LiteRtException) {
                environment.close()
                throw e
            }
        } catch (e: LiteRtException) {
            null // Qualcomm's runtime is not in the app, or is another version's
        }
    }
}
