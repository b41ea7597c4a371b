# The images of the operator, the proxy and the samples: static programs and nothing else.
#   docker build --target operator -t docker.io/weft/operator:dev .
#   docker build --target proxy -t docker.io/weft/proxy:dev .
#   docker build --target samples -t docker.io/weft/samples:dev .
# `./justw images` makes the same without Docker.

FROM docker.io/library/rust:1.95-bookworm AS build
# aws-lc-rs is built with cmake.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /weft
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/weft/target \
    target=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --locked --target "$target" \
        -p weft-operator -p weft-cli -p weft-proxy -p weft-samples --bins && \
    mkdir -p /out/bin /out/etc/ssl/certs /out/tmp && chmod 1777 /out/tmp && \
    cp "target/$target/dist/"weft "target/$target/dist/"weft-operator \
       "target/$target/dist/"weft-proxy "target/$target/dist/"weft-sample /out/bin/ && \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ && \
    echo 'root:x:0:0::/:/bin/sh' > /out/etc/passwd && echo 'weft:x:1337:1337::/:/bin/sh' >> /out/etc/passwd && \
    echo 'root:x:0:' > /out/etc/group && echo 'weft:x:1337:' >> /out/etc/group

FROM scratch AS base
COPY --from=build /out/etc /etc
COPY --from=build /out/tmp /tmp
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 1337:1337

FROM base AS operator
COPY --from=build /out/bin/weft-operator /out/bin/weft /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/weft-operator"]

FROM base AS proxy
COPY --from=build /out/bin/weft-proxy /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/weft-proxy"]

FROM base AS samples
COPY --from=build /out/bin/weft-sample /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/weft-sample"]
