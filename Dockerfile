# facecnn in a container, for a processor, or with --build-arg VARIANT=cuda12 (or cuda13) also for NVIDIA cards, whose
# driver the host brings (docker run --gpus all). Mount photos and runs at /work, and a folder or volume that stays at
# /cache: it keeps found faces and compiled kernels. docs/CLUSTER.md has the commands.
FROM python:3.13-slim-trixie

ARG VARIANT=cpu

# Numba's parallel loops run on OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY facecnn /src/facecnn
COPY configs /src/configs

RUN case "$VARIANT" in \
        cpu) card="" ;; \
        cuda12|cuda13) card=",$VARIANT" ;; \
        *) echo "VARIANT: cpu, cuda12 or cuda13" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir "/src[sample,faces,pretrained,heic,mpi$card]" \
    && useradd --create-home --uid 1000 facecnn \
    && install --directory --mode=1777 /work /cache

USER 1000
WORKDIR /work
ENV FACECNN_CACHE_DIR=/cache MPLCONFIGDIR=/tmp
VOLUME /cache
ENTRYPOINT ["facecnn"]
CMD ["--help"]
