package edgenet.classifier

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.components.containers.Category
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import java.io.Closeable

/** {{ asset }} by MediaPipe Tasks, which reads normalization and labels from the file. */
class MediaPipeClassifier(context: Context, maxResults: Int = 5) : Closeable {
    private val classifier = ImageClassifier.createFromOptions(
        context,
        ImageClassifier.ImageClassifierOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath(MODEL).build())
            .setRunningMode(RunningMode.IMAGE)
            .setMaxResults(maxResults)
            .build()
    )

    /**
     * The best classes for an upright picture of any size, each with index(), categoryName() and score().
     *
     * The picture is cropped and scaled as in the evaluation; MediaPipe by itself would squeeze all of it into a square.
     */
    fun classify(picture: Bitmap): List<Category> {
        val image = BitmapImageBuilder(Preprocessing.cropped(picture)).build()
        return classifier.classify(image).classificationResult().classifications()[0].categories()
    }

    override fun close() = classifier.close()

    companion object {
        const val MODEL = "{{ asset }}"
    }
}
