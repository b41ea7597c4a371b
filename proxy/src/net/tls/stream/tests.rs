use std::sync::{Arc, Mutex};

use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::net::tls::{
    provider,
    tests::{Authority, Leaf},
};

const ORDERS: &str = "orders";

fn configs(version: &'static SupportedProtocolVersion) -> (ServerConfig, ClientConfig) {
    let authority = Authority::new();
    let mut leaf = Leaf::workload(&[]);
    leaf.names = vec![rcgen::SanType::DnsName(ORDERS.try_into().unwrap())];
    let (certificate, key) = authority.sign(leaf);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

fn name() -> ServerName<'static> {
    ORDERS.try_into().unwrap()
}

fn server_end<IO>(config: ServerConfig, io: IO) -> ServerStream<IO> {
    TlsStream::new(io, UnbufferedServerConnection::new(Arc::new(config)).unwrap())
}

fn client_end<IO>(config: ClientConfig, io: IO) -> ClientStream<IO> {
    TlsStream::new(io, UnbufferedClientConnection::new(Arc::new(config), name()).unwrap())
}

async fn shake<IO, C>(mut stream: TlsStream<IO, C>) -> io::Result<TlsStream<IO, C>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    C: Connection,
{
    std::future::poll_fn(|cx| stream.poll_handshake(cx)).await.map(|()| stream)
}

/// Both ends ours.
async fn pair(capacity: usize) -> (ServerStream<DuplexStream>, ClientStream<DuplexStream>) {
    let (near, far) = duplex(capacity);
    let (server, client) = configs(&version::TLS13);
    let (server, client) =
        tokio::join!(shake(server_end(server, near)), shake(client_end(client, far)));
    (server.unwrap(), client.unwrap())
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Sends a lot both ways at once, with reads of `room` bytes, and says goodbye.
async fn talk<A, B>(near: A, far: B, room: usize)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    async fn end<S: AsyncRead + AsyncWrite>(stream: S, room: usize) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = pattern(150_000);
        let sending = async {
            for part in sent.chunks(40_001) {
                writer.write_all(part).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let receiving = async {
            let (mut all, mut some) = (Vec::new(), vec![0; room]);
            loop {
                match reader.read(&mut some).await.unwrap() {
                    0 => break all,
                    size => all.extend_from_slice(&some[..size]),
                }
            }
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert!(received == sent, "{} bytes", received.len());
    }
    tokio::join!(end(near, room), end(far, room));
}

#[tokio::test]
async fn bytes_arrive_however_they_are_cut() {
    for (capacity, room) in [(13, 1000), (1000, 7), (20_000, 300), (1 << 20, 1 << 20)] {
        let (server, client) = pair(capacity).await;
        talk(server, client, room).await;
    }
}

#[tokio::test]
async fn either_end_speaks_with_rustls_in_its_own_buffers() {
    for version in [&version::TLS12, &version::TLS13] {
        let (near, far) = duplex(5000);
        let (server, client) = configs(version);
        let connector = TlsConnector::from(Arc::new(client));
        let (ours, theirs) =
            tokio::join!(shake(server_end(server, near)), connector.connect(name(), far));
        talk(ours.unwrap(), theirs.unwrap(), 5000).await;

        let (near, far) = duplex(5000);
        let (server, client) = configs(version);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (theirs, ours) = tokio::join!(acceptor.accept(near), shake(client_end(client, far)));
        talk(theirs.unwrap(), ours.unwrap(), 5000).await;
    }
}

/// Notes each write of the end that has it.
struct Noted<IO> {
    io: IO,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Noted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, room)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Noted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let size = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.writes.lock().unwrap().push(bytes[..size].to_vec());
        Poll::Ready(Ok(size))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The sizes of the records in some bytes.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        sizes.push(size);
        bytes = &rest[size..];
    }
    assert!(bytes.is_empty());
    sizes
}

#[tokio::test]
async fn what_belongs_together_is_one_record_and_one_write() {
    let (near, far) = duplex(1 << 20);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let noted = Noted { io: near, writes: writes.clone() };
    let (server, client) = configs(&version::TLS13);
    let (server, client) =
        tokio::join!(shake(server_end(server, noted)), shake(client_end(client, far)));
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    // One for all of the handshake; the tickets come with the first bytes.
    assert_eq!(writes.lock().unwrap().len(), 1);
    writes.lock().unwrap().clear();
    server.write_all(b"x").await.unwrap();
    assert_eq!(writes.lock().unwrap().len(), 1);
    assert!(records(&writes.lock().unwrap()[0]).len() > 1);
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    // The content type and the tag.
    let sealed = |size| size + 17;
    let (head, body) = (pattern(200), pattern(60_000));
    for (parts, sizes) in [
        (vec![&head[..], &body[..1000]], vec![1200]),
        (vec![&head, b"", &body[..RECORD - 200]], vec![RECORD]),
        (vec![&head, &body[..40_000]], vec![RECORD, RECORD, 40_200 - 2 * RECORD]),
        (vec![&body[..20_000], &head, &head], vec![RECORD, 20_400 - RECORD]),
        (vec![&body, &body], vec![RECORD; 5]),
    ] {
        writes.lock().unwrap().clear();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let taken = server.write_vectored(&slices).await.unwrap();
        let writes = writes.lock().unwrap().clone();
        assert_eq!(writes.len(), 1);
        assert_eq!(records(&writes[0]), sizes.iter().copied().map(sealed).collect::<Vec<_>>());
        assert_eq!(taken, sizes.iter().sum::<usize>());
        let sent = parts.concat();
        let mut received = vec![0; taken];
        client.read_exact(&mut received).await.unwrap();
        assert!(received == sent[..taken]);
    }
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffer() {
    let (mut server, mut client) = pair(1 << 20).await;
    let message = pattern(50_000);
    let mut received = vec![0; message.len()];
    server.write_all(&message).await.unwrap();
    client.read_exact(&mut received).await.unwrap();
    client.write_all(&message).await.unwrap();
    server.read_exact(&mut received).await.unwrap();
    for (incoming, plain, outgoing) in [
        (&server.incoming, &server.plain, &server.outgoing),
        (&client.incoming, &client.plain, &client.outgoing),
    ] {
        assert_eq!((incoming.capacity(), plain.capacity(), outgoing.capacity()), (0, 0, 0));
    }
}

#[tokio::test]
async fn tickets_wait_for_what_is_written_first_or_for_a_flush() {
    for flushed in [false, true] {
        let (mut server, mut client) = pair(1 << 20).await;
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let (mut byte, mut none) = ([0], [0]);
        let read = &mut ReadBuf::new(&mut byte);
        assert!(Pin::new(&mut server).poll_read(cx, read).is_pending());
        assert!(!server.outgoing.is_empty());
        assert!(Pin::new(&mut client).poll_read(cx, &mut ReadBuf::new(&mut none)).is_pending());
        assert_eq!(client.connection.tls13_tickets_received(), 0);
        if flushed {
            server.flush().await.unwrap();
            assert!(Pin::new(&mut client).poll_read(cx, &mut ReadBuf::new(&mut none)).is_pending());
        } else {
            server.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
        }
        assert!(server.outgoing.is_empty());
        assert_eq!(client.connection.tls13_tickets_received(), 2);
    }
}

#[tokio::test]
async fn the_last_write_takes_the_goodbye_along_when_it_is_taken_whole() {
    for (size, sizes, taken) in [
        (100, vec![vec![117], vec![19]], 100),
        (WRITTEN, vec![vec![RECORD + 17; 5], vec![19]], WRITTEN),
        (WRITTEN + 10, vec![vec![RECORD + 17; 5]], WRITTEN),
    ] {
        let (near, far) = duplex(1 << 20);
        let writes = Arc::new(Mutex::new(Vec::new()));
        let noted = Noted { io: near, writes: writes.clone() };
        let (server, client) = configs(&version::TLS13);
        let (server, client) =
            tokio::join!(shake(server_end(server, noted)), shake(client_end(client, far)));
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        server.flush().await.unwrap();
        server.ends_with_next_write();
        writes.lock().unwrap().clear();
        let message = pattern(size);
        assert_eq!(server.write(&message).await.unwrap(), taken);
        assert_eq!(writes.lock().unwrap().len(), 1);
        assert_eq!(records(&writes.lock().unwrap()[0]), sizes.concat());
        if taken < size {
            server.write_all(&message[taken..]).await.unwrap();
        }
        assert!(server.write_all(b"more").await.is_err(), "it has said goodbye");
        server.shutdown().await.unwrap();
        assert_eq!(writes.lock().unwrap().len(), if taken < size { 2 } else { 1 });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received == message);
    }
}

#[tokio::test]
async fn an_end_without_a_farewell_is_an_error_and_one_with_it_leaves_the_other_direction_open() {
    let (server, mut client) = pair(1 << 20).await;
    drop(server);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let (mut server, mut client) = pair(1 << 20).await;
    client.write_all(b"that is all").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"that is all");
    assert!(client.write_all(b"no").await.is_err());
    // The pipe of the test ends as a whole where one end does; the TLS layer does not mind.
    assert!(server.ended && !server.broken);
    assert!(server.when_writable(|_, _| Ok(())).is_ok());
}

/// What a server with small records says after the handshake, ending in the middle of a message.
async fn half_a_ticket() -> (ClientStream<DuplexStream>, DuplexStream, Vec<u8>) {
    let (near, far) = duplex(1 << 20);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let noted = Noted { io: near, writes: writes.clone() };
    let (mut server, client) = configs(&version::TLS13);
    server.max_fragment_size = Some(40);
    let (server, client) =
        tokio::join!(shake(server_end(server, noted)), shake(client_end(client, far)));
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    writes.lock().unwrap().clear();
    server.write_all(b"answer").await.unwrap();
    let said = writes.lock().unwrap().concat();
    assert!(records(&said).len() > 5);
    // From now on the test is the server.
    let (near, far) = duplex(1 << 20);
    client.io = far;
    (client, near, said)
}

#[tokio::test]
async fn messages_in_pieces_do_not_get_in_the_way_of_writing() {
    let (mut client, mut wire, said) = half_a_ticket().await;
    let mut received = Vec::new();
    for byte in said {
        wire.write_all(&[byte]).await.unwrap();
        let mut some = [0; 100];
        tokio::select! {
            biased;
            size = client.read(&mut some) => received.extend_from_slice(&some[..size.unwrap()]),
            () = std::future::ready(()) => {}
        }
        client.write_all(b"question").await.unwrap();
    }
    assert_eq!(received, b"answer");
    assert_eq!(client.connection.tls13_tickets_received(), 2);
}

#[tokio::test]
async fn nonsense_is_answered_with_an_alert_and_ends_the_connection() {
    for nonsense in [&[23, 3, 3, 0, 20][..], &[99; 5], &[23, 3, 3, 255, 255]] {
        for pieces in [0, 1, 2] {
            let (mut client, mut wire, said) = half_a_ticket().await;
            let piece = records(&said)[0] + 5;
            wire.write_all(&said[..piece * pieces]).await.unwrap();
            wire.write_all(nonsense).await.unwrap();
            wire.write_all(&[0; 20]).await.unwrap();
            let error = client.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let error = client.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
            assert!(client.write_all(b"question").await.is_err());
            client.shutdown().await.unwrap();
            let mut last = Vec::new();
            wire.read_to_end(&mut last).await.unwrap();
            assert_eq!(records(&last), [19], "an alert");
        }
    }
}

#[tokio::test]
async fn keys_are_changed_in_the_middle() {
    let (near, far) = duplex(1 << 20);
    let (server, client) = configs(&version::TLS13);
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (theirs, ours) = tokio::join!(acceptor.accept(near), shake(client_end(client, far)));
    let (mut theirs, mut ours) = (theirs.unwrap(), ours.unwrap());
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"new keys").await.unwrap();
        theirs.flush().await.unwrap();
        let mut received = [0; 8];
        ours.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"new keys");
        ours.write_all(b"mine too").await.unwrap();
        theirs.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"mine too");
    }
}
