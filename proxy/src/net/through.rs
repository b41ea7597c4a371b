//! Streams that read and write as what they hold does.

/// `AsyncRead` for a type whose patterns each bind what reads: `reads!(Stream { Self::Plain(io) => io, Self::Tls(io) => io })`.
macro_rules! reads {
    ($type:ty { $($pattern:pat => $io:ident),+ $(,)? }) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $($pattern => tokio::io::AsyncRead::poll_read(std::pin::Pin::new($io), cx, buf),)+
                }
            }
        }
    };
}

/// `AsyncWrite` likewise.
macro_rules! writes {
    ($type:ty { $($pattern:pat => $io:ident),+ $(,)? }) => {
        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $($pattern => tokio::io::AsyncWrite::poll_write(std::pin::Pin::new($io), cx, buf),)+
                }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $($pattern => tokio::io::AsyncWrite::poll_write_vectored(std::pin::Pin::new($io), cx, bufs),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $($pattern => tokio::io::AsyncWrite::is_write_vectored($io),)+
                }
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $($pattern => tokio::io::AsyncWrite::poll_flush(std::pin::Pin::new($io), cx),)+
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $($pattern => tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new($io), cx),)+
                }
            }
        }
    };
}

pub(crate) use reads;
pub(crate) use writes;
