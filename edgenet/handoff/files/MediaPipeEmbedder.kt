package edgenet.classifier

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imageembedder.ImageEmbedder
import java.io.Closeable

/** {{ asset }} by MediaPipe Tasks, which reads the normalization from the file. */
class MediaPipeEmbedder(context: Context) : Closeable {
    private val embedder = ImageEmbedder.createFromOptions(
        context,
        ImageEmbedder.ImageEmbedderOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath(MODEL).build())
            .setRunningMode(RunningMode.IMAGE)
            .setL2Normalize(false)
            .setQuantize(false)
            .build()
    )

    /**
     * The embedding of an upright picture of any size.
     *
     * The picture is cropped and scaled as in the evaluation; MediaPipe by itself would squeeze all of it into the input.
     */
    fun embed(picture: Bitmap): FloatArray {
        val image = BitmapImageBuilder(Preprocessing.cropped(picture)).build()
        return embedder.embed(image).embeddingResult().embeddings()[0].floatEmbedding()
    }

    override fun close() = embedder.close()

    companion object {
        const val MODEL = "{{ asset }}"
    }
}
