// An Android library module: put this folder into a project and `include` it, or take over the lines below.
plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "edgenet.classifier"
    compileSdk = {{COMPILE_SDK}}
    defaultConfig {
        minSdk = {{MIN_SDK}}
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources {
        noCompress += "tflite" // so that the model can be mapped
    }
}

dependencies {
{{DEPENDENCIES}}
}
