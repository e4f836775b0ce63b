# syntax=docker/dockerfile:1

# One build, three images:
#
#   docker build --target carga --tag carga .     all of Carga in one process; its data is in /data
#   docker build --target api --tag carga-api .         these two are what docker-compose.yml starts
#   docker build --target worker --tag carga-worker .
#
# A container listens on every address, so CARGA_AUTH must say whether requests need an API key:
#
#   docker run --name carga -e CARGA_AUTH=on -p 127.0.0.1:8080:8080 -v carga:/data carga
#   docker exec carga carga keys create --admin
#
# Builder and runtime are the same Debian release, because a program needs a glibc that is at least
# as new as the one it was linked with. Distroless maintains a release for one year after the next
# release, so Debian 12 ended in August 2026.
ARG RUST_VERSION=1.95
ARG DEBIAN_CODENAME=trixie
ARG DEBIAN_VERSION=13
# Lists the crates of Cargo.lock in the image's SBOM; the programs themselves do not name them.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

# aws-lc needs only the C compiler of this image: for x86-64 and arm64 it ships its bindings.
FROM rust:${RUST_VERSION}-${DEBIAN_CODENAME} AS builder
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
WORKDIR /build
COPY . .
# Both caches outlive the build, so only crates that changed are compiled again. A cache is not
# part of the image: the programs have to leave it in the same step. `touch`, because Cargo compares
# times, and a fresh checkout may be older than a build of other sources that is in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --locked --release \
        -p carga -p carga-api -p carga-worker --features carga/servers \
    && mkdir -p /out/bin /out/data \
    && cp target/release/carga target/release/carga-api target/release/carga-worker /out/bin

# This image has no shell and no curl, so each program is its own health check. Migrations are in
# the programs.
FROM gcr.io/distroless/cc-debian${DEBIAN_VERSION}:nonroot AS runtime
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0"
# A release adds THIRD-PARTY.txt; elsewhere that pattern matches nothing.
COPY LICENSE-* THIRD-PARTY* /usr/share/doc/carga/
# The image's user `nonroot`, as a number: Kubernetes cannot compare a name with runAsNonRoot.
USER 65532:65532

FROM runtime AS worker
LABEL org.opencontainers.image.title="carga-worker" \
    org.opencontainers.image.description="Writes Carga's batches to the archive and to the database"
COPY --from=builder /out/bin/carga-worker /usr/local/bin/carga-worker
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["/usr/local/bin/carga-worker", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/carga-worker"]

FROM runtime AS api
LABEL org.opencontainers.image.title="carga-api" \
    org.opencontainers.image.description="Takes CSV files over HTTP and publishes them as batches"
COPY --from=builder /out/bin/carga-api /usr/local/bin/carga-api
# Carga's default is loopback, which cannot be reached from outside a container.
ENV CARGA_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["/usr/local/bin/carga-api", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/carga-api"]

FROM runtime AS carga
LABEL org.opencontainers.image.title="carga" \
    org.opencontainers.image.description="Takes CSV files and stores every row, in one process"
COPY --from=builder /out/bin/carga /usr/local/bin/carga
# A new volume takes its owner from this directory.
COPY --from=builder --chown=65532:65532 /out/data /data
VOLUME /data
ENV CARGA_DATA_DIR=/data CARGA_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["/usr/local/bin/carga", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/carga"]
