{% if embeds %}

    @Test
    fun mediaPipeGivesTheGoldenAnswers() = MediaPipeEmbedder(context).use { embedder ->
        forEachCase { case -> compare(case, embedder.embed(photograph(case))) }
    }
{% else %}

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
{% endif %}
