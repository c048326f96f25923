# edgenet with all formats, Keras files and training: docker build -t edgenet .
# Only what a zoo model needs: docker build --build-arg EXTRAS=weights,tflite,sample -t edgenet .
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY edgenet edgenet
COPY export export
COPY calibration calibration
COPY device_bench device_bench
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ARG EXTRAS=all
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir "$(ls /wheels/edgenet-*.whl)[$EXTRAS]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 edgenet \
    && install -d -o edgenet -g edgenet /work
USER edgenet
# What is mounted here has the pictures, and gets what is made.
WORKDIR /work
ENTRYPOINT ["edgenet"]
CMD ["--help"]
