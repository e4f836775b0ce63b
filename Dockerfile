# syntax=docker/dockerfile:1

# One build, two images: `docker build --target api .` and `docker build --target worker .`.
#
# Builder and runtime are both Debian 13, because a binary needs a glibc at least as new as the one it was linked with.
# Debian 13 and not 12: distroless keeps a Debian release for one year after the next one, and 12's year ended in August 2026.
ARG RUST_VERSION=1.95
ARG DEBIAN_CODENAME=trixie
ARG DEBIAN_VERSION=13

FROM rust:${RUST_VERSION}-${DEBIAN_CODENAME} AS chef
ARG CARGO_CHEF_VERSION=0.1.78
RUN cargo install cargo-chef --locked --version ${CARGO_CHEF_VERSION} \
    && rm -rf /usr/local/cargo/registry
WORKDIR /build

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# The image's C compiler is enough for aws-lc: on x86-64 and arm64 it ships generated bindings, so it asks for no cmake.
FROM chef AS builder
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
COPY --from=planner /build/recipe.json recipe.json
# Our dependencies, in a layer that changes only with Cargo.lock or a manifest.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo chef cook --locked --release -p carga-api -p carga-worker --recipe-path recipe.json
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --locked --release -p carga-api -p carga-worker

# No shell and no curl in here: each binary is its own health check. The migrations are inside the binaries.
FROM gcr.io/distroless/cc-debian${DEBIAN_VERSION}:nonroot AS runtime
# The image's own `nonroot`, as a number because Kubernetes cannot check a name against runAsNonRoot.
USER 65532:65532

FROM runtime AS worker
COPY --from=builder /build/target/release/carga-worker /usr/local/bin/carga-worker
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/carga-worker", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/carga-worker"]

FROM runtime AS api
COPY --from=builder /build/target/release/carga-api /usr/local/bin/carga-api
# The default is loopback, which nobody could reach in a container.
ENV CARGA_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/carga-api", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/carga-api"]
