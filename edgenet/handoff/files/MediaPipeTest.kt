
    @Test
    fun mediaPipeGivesTheGoldenAnswers() = MediaPipeClassifier(context, maxResults = -1).use { classifier ->
        forEachCase { case ->
            val scores = FloatArray(LiteRtClassifier.CLASSES)
            for (category in classifier.classify(photograph(case))) {
                scores[category.index()] = category.score()
            }
            compare(case, scores)
        }
    }
