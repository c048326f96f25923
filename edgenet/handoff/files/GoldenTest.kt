package edgenet.classifier

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** {{ n_cases }} photographs with what {{ asset }} was given and what it answered where it was evaluated. */
@RunWith(AndroidJUnit4::class)
class GoldenTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext
    private val assets = InstrumentationRegistry.getInstrumentation().context.assets
    private val golden = JSONObject(String(read("golden.json")))
    private val tolerance = golden.getDouble("tolerance").toFloat()

    @Test
    fun photographsBecomeTheGoldenInputs() = forEachCase { case ->
        val input = Preprocessing.input(Preprocessing.pixels(photograph(case)))
        val bytes = ByteArray(input.remaining())
        input.get(bytes)
        assertArrayEquals(case.getString("photograph"), read(case.getString("input")), bytes)
    }

    @Test
    fun liteRtGivesTheGoldenAnswers() = LiteRtClassifier(context).use { classifier ->
        forEachCase { case ->
            val bytes = read(case.getString("input"))
            val input = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder())
            input.put(bytes).rewind()
            compare(case, classifier.run(input))
        }
    }
{% if with_mediapipe %}
{% include "MediaPipeTest.kt" %}
{% endif %}

    private fun compare(case: JSONObject, scores: FloatArray) {
        val expected = ByteBuffer.wrap(read(case.getString("output"))).order(ByteOrder.LITTLE_ENDIAN)
        var largest = 0f
        for (score in scores) {
            largest = maxOf(largest, Math.abs(score - expected.getFloat()))
        }
        val name = case.getString("photograph")
        assertEquals("$name: classes", 0, expected.remaining())
        assertTrue("$name: scores differ by $largest, allowed are $tolerance", largest <= tolerance)
        val best = scores.indices.sortedByDescending { scores[it] }.first()
        if (case.getDouble("margin") > 2 * tolerance) {
            assertEquals("$name: top-1", case.getInt("top1"), best)
        }
    }

    private fun forEachCase(check: (JSONObject) -> Unit) {
        val cases = golden.getJSONArray("cases")
        assertEquals({{ n_cases }}, cases.length())
        for (i in 0 until cases.length()) {
            check(cases.getJSONObject(i))
        }
    }

    private fun photograph(case: JSONObject): Bitmap {
        val bytes = read(case.getString("photograph"))
        return BitmapFactory.decodeByteArray(bytes, 0, bytes.size)
    }

    private fun read(name: String): ByteArray = assets.open("golden/$name").use { it.readBytes() }
}
