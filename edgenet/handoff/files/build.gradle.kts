// An Android library module: put this folder into a project and `include` it, or take over the lines below.
plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "edgenet.classifier"
    compileSdk = {{ compile_sdk }}
    defaultConfig {
        minSdk = {{ min_sdk }}
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
{% if with_npu %}
    packaging {
        jniLibs.useLegacyPackaging = true // Qualcomm's libraries are loaded from files: the app needs this line too
    }
{% endif %}
    androidResources {
        noCompress += "tflite" // so that the model can be mapped
    }
}

dependencies {
{% for d in dependencies %}
    {{ d.configuration }}("{{ d.package }}:{{ d.version }}")
{% endfor %}
}
