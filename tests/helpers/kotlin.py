"""Compile and run the Kotlin of a hand-over without an Android SDK: kotlinc, and stubs of what the code calls.

A stub has the names and types that the API's documentation and sources give, and does nothing. Sources:
    https://developer.android.com/reference    https://ai.google.dev/edge/litert/inference (org.tensorflow.lite)
    https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/java    https://junit.org/junit4/javadoc
    https://github.com/google-ai-edge/LiteRT, litert/kotlin (com.google.ai.edge.litert)
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

KOTLINC, KOTLIN = shutil.which("kotlinc"), shutil.which("kotlin")

# package -> what of it the code calls, in Kotlin
STUBS = {
    "android.content": """
        import java.io.InputStream
        abstract class Context { abstract val assets: android.content.res.AssetManager }
    """,
    "android.content.res": """
        class AssetManager {
            fun open(fileName: String): java.io.InputStream = TODO()
            fun openFd(fileName: String): AssetFileDescriptor = TODO()
        }
        class AssetFileDescriptor : java.io.Closeable {
            val fileDescriptor: java.io.FileDescriptor get() = TODO()
            val startOffset: Long get() = TODO()
            val declaredLength: Long get() = TODO()
            override fun close() {}
        }
    """,
    "android.graphics": """
        class Bitmap {
            enum class Config { ALPHA_8, ARGB_8888, HARDWARE }
            val width: Int get() = TODO()
            val height: Int get() = TODO()
            fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {}
            companion object {
                fun createBitmap(colors: IntArray, width: Int, height: Int, config: Config): Bitmap = TODO()
            }
        }
        object BitmapFactory { fun decodeByteArray(data: ByteArray, offset: Int, length: Int): Bitmap = TODO() }
    """,
    "android.os": """
        object Build { object VERSION { val SDK_INT: Int get() = TODO() }; val SOC_MODEL: String get() = TODO() }
    """,
    "com.google.ai.edge.litert": """
        enum class Accelerator { NONE, CPU, GPU, NPU }
        class LiteRtException(message: String) : Exception(message)
        interface NpuCompatibilityChecker { fun isDeviceSupported(): Boolean }
        interface NpuAcceleratorProvider
        class BuiltinNpuAcceleratorProvider(
            context: android.content.Context, npuCompatibilityChecker: NpuCompatibilityChecker
        ) : NpuAcceleratorProvider
        class Environment : AutoCloseable {
            override fun close() {}
            companion object { fun create(npuAcceleratorProvider: NpuAcceleratorProvider): Environment = TODO() }
        }
        class TensorBuffer : AutoCloseable {
            fun writeInt8(data: ByteArray) {}
            fun readInt8(): ByteArray = TODO()
            override fun close() {}
        }
        class CompiledModel : AutoCloseable {
            class Options(vararg accelerators: Accelerator)
            fun createInputBuffers(): List<TensorBuffer> = TODO()
            fun createOutputBuffers(): List<TensorBuffer> = TODO()
            fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>) {}
            override fun close() {}
            companion object {
                fun create(
                    assetManager: android.content.res.AssetManager, assetName: String, options: Options,
                    optionalEnv: Environment?
                ): CompiledModel = TODO()
            }
        }
    """,
    "org.json": """
        class JSONObject(json: String) {
            fun has(name: String): Boolean = TODO()
            fun getDouble(name: String): Double = TODO()
            fun getInt(name: String): Int = TODO()
            fun getString(name: String): String = TODO()
            fun getJSONArray(name: String): JSONArray = TODO()
        }
        class JSONArray {
            fun length(): Int = TODO()
            fun getJSONObject(index: Int): JSONObject = TODO()
            fun getString(index: Int): String = TODO()
        }
    """,
    "org.tensorflow.lite": """
        class Interpreter(byteBuffer: java.nio.ByteBuffer, options: Options) : AutoCloseable {
            class Options { fun setNumThreads(numThreads: Int): Options = this }
            fun run(input: Any, output: Any) {}
            override fun close() {}
        }
    """,
    "com.google.mediapipe.framework.image": """
        class MPImage
        class BitmapImageBuilder(bitmap: android.graphics.Bitmap) { fun build(): MPImage = TODO() }
    """,
    "com.google.mediapipe.tasks.core": """
        class BaseOptions {
            class Builder { fun setModelAssetPath(value: String): Builder = this; fun build(): BaseOptions = TODO() }
            companion object { fun builder(): Builder = TODO() }
        }
    """,
    "com.google.mediapipe.tasks.vision.core": "enum class RunningMode { IMAGE, VIDEO, LIVE_STREAM }",
    "com.google.mediapipe.tasks.components.containers": """
        class Category {
            fun index(): Int = TODO(); fun score(): Float = TODO(); fun categoryName(): String = TODO()
        }
        class Classifications { fun categories(): List<Category> = TODO() }
        class ClassificationResult { fun classifications(): List<Classifications> = TODO() }
        class Embedding { fun floatEmbedding(): FloatArray = TODO() }
        class EmbeddingResult { fun embeddings(): List<Embedding> = TODO() }
    """,
    "com.google.mediapipe.tasks.vision.imageembedder": """
        import com.google.mediapipe.tasks.components.containers.EmbeddingResult
        class ImageEmbedderResult { fun embeddingResult(): EmbeddingResult = TODO() }
        class ImageEmbedder : AutoCloseable {
            class ImageEmbedderOptions {
                class Builder {
                    fun setBaseOptions(value: com.google.mediapipe.tasks.core.BaseOptions): Builder = this
                    fun setRunningMode(value: com.google.mediapipe.tasks.vision.core.RunningMode): Builder = this
                    fun setL2Normalize(value: Boolean): Builder = this
                    fun setQuantize(value: Boolean): Builder = this
                    fun build(): ImageEmbedderOptions = TODO()
                }
                companion object { fun builder(): Builder = TODO() }
            }
            fun embed(image: com.google.mediapipe.framework.image.MPImage): ImageEmbedderResult = TODO()
            override fun close() {}
            companion object {
                fun createFromOptions(
                    context: android.content.Context, options: ImageEmbedderOptions
                ): ImageEmbedder = TODO()
            }
        }
    """,
    "com.google.mediapipe.tasks.vision.imageclassifier": """
        import com.google.mediapipe.tasks.components.containers.ClassificationResult
        class ImageClassifierResult { fun classificationResult(): ClassificationResult = TODO() }
        class ImageClassifier : AutoCloseable {
            class ImageClassifierOptions {
                class Builder {
                    fun setBaseOptions(value: com.google.mediapipe.tasks.core.BaseOptions): Builder = this
                    fun setRunningMode(value: com.google.mediapipe.tasks.vision.core.RunningMode): Builder = this
                    fun setMaxResults(value: Int): Builder = this
                    fun build(): ImageClassifierOptions = TODO()
                }
                companion object { fun builder(): Builder = TODO() }
            }
            fun classify(image: com.google.mediapipe.framework.image.MPImage): ImageClassifierResult = TODO()
            override fun close() {}
            companion object {
                fun createFromOptions(
                    context: android.content.Context, options: ImageClassifierOptions
                ): ImageClassifier = TODO()
            }
        }
    """,
    "androidx.test.platform.app": """
        class Instrumentation {
            val context: android.content.Context get() = TODO()
            val targetContext: android.content.Context get() = TODO()
        }
        object InstrumentationRegistry { fun getInstrumentation(): Instrumentation = TODO() }
    """,
    "androidx.test.ext.junit.runners": "class AndroidJUnit4",
    "org.junit": """
        annotation class Test
        object Assume { fun assumeTrue(message: String, condition: Boolean) {} }
        object Assert {
            fun assertArrayEquals(message: String, expecteds: ByteArray, actuals: ByteArray) {}
            fun assertEquals(message: String, expected: Any?, actual: Any?) {}
            fun assertEquals(expected: Long, actual: Long) {}
            fun assertEquals(expected: Any?, actual: Any?) {}
            fun assertTrue(message: String, condition: Boolean) {}
        }
    """,
    "org.junit.runner": "annotation class RunWith(val value: kotlin.reflect.KClass<*>)",
}

# A compiler that compiles itself well takes longer than these few files.
ENVIRONMENT = {**os.environ, "JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:CICompilerCount=1"}

# Applies each package's Preprocessing to the picture in each file: width, height and packed pixels as big-endian ints;
# what each makes of it goes, one after another, into a file of the same name and ".out".
RUNNER = """
fun main(args: Array<String>) = args.forEach { scale(it) }

fun scale(file: String) {
    val source = java.io.DataInputStream(java.io.File(file).inputStream().buffered())
    val width = source.readInt()
    val height = source.readInt()
    val picture = IntArray(width * height) { source.readInt() }
    java.io.File(file + ".out").outputStream().buffered().use { out ->
        for (input in listOf(CALLS)) {
            val bytes = ByteArray(input.remaining())
            input.get(bytes)
            out.write(bytes)
        }
    }
}
"""


def runner(packages: Sequence[str]) -> str:
    """Return a program that applies the Preprocessing of each package."""
    calls = [f"{p}.Preprocessing.input({p}.Preprocessing.pixels(picture, width, height))" for p in packages]
    return RUNNER.replace("CALLS", ", ".join(calls))


def compile_kotlin(sources: Sequence[Path], out: Path) -> str:
    """Compile to the folder or .jar `out`; return what kotlinc says, "" where all is well."""
    command = [str(KOTLINC), "-nowarn", "-d", str(out), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "error:" in line]
    return "\n".join(said) if said or done.returncode == 0 else done.stderr or "kotlinc failed"


def write_stubs(folder: Path) -> list[Path]:
    """Write a file for each package of STUBS and return them."""
    folder.mkdir(parents=True)
    files = []
    for package, text in STUBS.items():
        path = folder / f"{package}.kt"
        path.write_text(f"package {package}\n{text}\n")
        files.append(path)
    return files
