package edgenet.classifier

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith

/** The golden photographs on the NPU: within a tolerance of what Qualcomm's emulator of this chip answered. */
@RunWith(AndroidJUnit4::class)
class NpuGoldenTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext
    private val assets = InstrumentationRegistry.getInstrumentation().context.assets
    private val golden = JSONObject(String(read("golden.json")))

    @Test
    fun theNpuGivesTheEmulatorsAnswers() {
        val files = golden.getJSONArray("npu")
        val asset = NpuClassifier.compiledFor(context, NpuClassifier.soc())
        val mine = (0 until files.length()).map { files.getJSONObject(it) }.filter { it.getString("file") == asset }
        assumeTrue("nothing was compiled for ${NpuClassifier.soc()}", mine.isNotEmpty())
        val cases = golden.getJSONArray("cases")
        val tolerance = mine[0].getDouble("tolerance").toFloat()
        NpuClassifier(context).use { classifier ->
            assertTrue("the CPU answers: is Qualcomm's runtime in the app?", classifier.onNpu)
            for (i in 0 until cases.length()) {
                val bytes = read(cases.getJSONObject(i).getString("input"))
                val input = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder())
                input.put(bytes).rewind()
                val scores = classifier.run(input)
                val expected = ByteBuffer.wrap(read(mine[0].getJSONArray("scores").getString(i))).order(ByteOrder.LITTLE_ENDIAN)
                var largest = 0f
                for (score in scores) {
                    largest = maxOf(largest, Math.abs(score - expected.getFloat()))
                }
                assertEquals("$i: classes", 0, expected.remaining())
                assertTrue("$i: scores differ by $largest, allowed are $tolerance", largest <= tolerance)
            }
        }
    }

    private fun read(name: String): ByteArray = assets.open("golden/$name").use { it.readBytes() }
}
