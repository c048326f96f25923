package edgenet.classifier

import android.graphics.Bitmap

/** The pixels that the model sees of a picture. Not for Bitmap.Config.HARDWARE, whose pixels cannot be read. */
fun Preprocessing.pixels(picture: Bitmap): IntArray {
    val argb = IntArray(picture.width * picture.height)
    picture.getPixels(argb, 0, picture.width, 0, 0, picture.width, picture.height)
    return pixels(argb, picture.width, picture.height)
}

/** The same as a picture of WIDTH_PX x HEIGHT_PX. */
fun Preprocessing.cropped(picture: Bitmap): Bitmap =
    Bitmap.createBitmap(pixels(picture), WIDTH_PX, HEIGHT_PX, Bitmap.Config.ARGB_8888)
