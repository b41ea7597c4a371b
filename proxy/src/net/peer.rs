//! Who the peers are: the workload metadata that proxies tell each other.
//!
//! HTTP carries it in `x-envoy-peer-metadata-id` and `x-envoy-peer-metadata`; TCP with ALPN `istio-peer-exchange` sends
//! it first: a magic number, a length, and an `Any`. Decoding is bounded, and cached per thread. What a peer says of
//! itself is for telemetry only; who it is, its certificate says.
//! Source: Istio's metadata exchange (istio/proxy `metadata_exchange`, `peer_metadata`).

use std::{cell::RefCell, fmt, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use foldhash::HashMap;
use http::HeaderValue;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use weft_api::{
    node::NodeInfo,
    xds::google::protobuf::{Any, Struct, Value, value::Kind},
};

use crate::config::cluster::WorkloadInfo;

/// The request and response header with the peer's node id.
pub const PEER_METADATA_ID: &str = "x-envoy-peer-metadata-id";
/// The request and response header with the peer's metadata.
pub const PEER_METADATA: &str = "x-envoy-peer-metadata";
/// The ALPN protocol under which TCP peers exchange metadata.
pub const PEER_EXCHANGE: &[u8] = b"istio-peer-exchange";

const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
const MAGIC: u32 = 0x3D23_0467;
/// Longest metadata that is read, encoded or not.
const MAX_METADATA: usize = 16 * 1024;
/// Longest value of a label of a metric that is taken from a peer.
const MAX_VALUE: usize = 256;
/// Peers that a thread remembers.
const MAX_PEERS: usize = 512;

/// Why a peer's metadata is not read.
#[derive(Debug, thiserror::Error)]
pub enum PeerMetadataError {
    /// It is longer than what is read.
    #[error("{0} bytes of peer metadata are too many")]
    TooLong(usize),
    /// It is not base64.
    #[error("peer metadata is not base64")]
    Base64(#[source] base64::DecodeError),
    /// It is not what it should be.
    #[error("peer metadata is not a protobuf Struct")]
    Decode(#[source] prost::DecodeError),
    /// It does not begin as it should.
    #[error("the peer does not begin with the magic number of a metadata exchange")]
    Magic,
    /// The connection broke.
    #[error("the connection broke during the metadata exchange")]
    Io(#[source] std::io::Error),
    /// The peer says nothing.
    #[error("the peer did not send its metadata in time")]
    TimedOut,
}

/// What this workload tells its peers, encoded once.
#[derive(Clone, Debug)]
pub struct OwnMetadata {
    /// [`PEER_METADATA_ID`]'s value.
    pub id: HeaderValue,
    /// [`PEER_METADATA`]'s value.
    pub value: HeaderValue,
    /// The workload as metrics name it.
    pub workload: Arc<WorkloadInfo>,
    preamble: Bytes,
}

impl OwnMetadata {
    /// Of the workload's description.
    pub fn new(node: &NodeInfo) -> Self {
        let mut metadata = node.metadata();
        metadata.fields.retain(|name, _| {
            ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "LABELS"].contains(&name.as_str())
        });
        let workload = Arc::new(workload_of(&metadata));
        let base64 = BASE64_STANDARD.encode(metadata.encode_to_vec());
        let preamble = preamble(&node.id(), metadata);
        let header = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self { id: header(&node.id()), value: header(&base64), workload, preamble }
    }
}

/// Magic number, length, and the metadata inside a `Struct` with its id, inside an `Any`.
fn preamble(id: &str, metadata: Struct) -> Bytes {
    let value = |kind| Value { kind: Some(kind) };
    let outer = Struct {
        fields: [
            (PEER_METADATA_ID.to_owned(), value(Kind::StringValue(id.to_owned()))),
            (PEER_METADATA.to_owned(), value(Kind::StructValue(metadata))),
        ]
        .into(),
    };
    let any = Any { type_url: STRUCT_URL.to_owned(), value: outer.encode_to_vec() };
    let mut bytes = BytesMut::with_capacity(8 + any.encoded_len());
    bytes.put_u32(MAGIC);
    bytes.put_u32(u32::try_from(any.encoded_len()).unwrap_or(u32::MAX));
    bytes.put_slice(&any.encode_to_vec());
    bytes.freeze()
}

fn text<'a>(fields: &'a Struct, name: &str) -> &'a str {
    match fields.fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

/// A value that may become a label's: bounded.
fn bounded(text: &str) -> Arc<str> {
    let mut end = text.len().min(MAX_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

fn first<'a>(candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    candidates.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

fn workload_of(metadata: &Struct) -> WorkloadInfo {
    let empty = Struct::default();
    let labels = match metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => labels,
        _ => &empty,
    };
    let workload = text(metadata, "WORKLOAD_NAME");
    let (app, version) = (text(labels, "app"), text(labels, "version"));
    let canonical =
        |key, kubernetes, label| first([text(labels, key), text(labels, kubernetes), label]);
    let name = canonical("service.istio.io/canonical-name", "app.kubernetes.io/name", app);
    let revision =
        canonical("service.istio.io/canonical-revision", "app.kubernetes.io/version", version);
    WorkloadInfo {
        workload: bounded(workload),
        namespace: bounded(text(metadata, "NAMESPACE")),
        canonical_name: bounded(first([name, workload])),
        canonical_revision: bounded(revision),
        cluster: bounded(text(metadata, "CLUSTER_ID")),
        app: bounded(app),
        version: bounded(version),
    }
}

/// The workload that a header's value describes.
///
/// # Errors
/// It is too long, or not base64 of a `Struct`.
pub fn decode_header(value: &[u8]) -> Result<WorkloadInfo, PeerMetadataError> {
    if value.len() > MAX_METADATA {
        return Err(PeerMetadataError::TooLong(value.len()));
    }
    let bytes = BASE64_STANDARD.decode(value).map_err(PeerMetadataError::Base64)?;
    let metadata = Struct::decode(bytes.as_slice()).map_err(PeerMetadataError::Decode)?;
    Ok(workload_of(&metadata))
}

/// The workload that the `Any` of a TCP exchange describes.
///
/// # Errors
/// It is not an `Any` of a `Struct`.
pub fn decode_exchange(bytes: &[u8]) -> Result<WorkloadInfo, PeerMetadataError> {
    let any = Any::decode(bytes).map_err(PeerMetadataError::Decode)?;
    let outer = Struct::decode(any.value.as_slice()).map_err(PeerMetadataError::Decode)?;
    match outer.fields.get(PEER_METADATA).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(metadata)) => Ok(workload_of(metadata)),
        _ => Ok(workload_of(&outer)),
    }
}

/// The first eight bytes of an exchange: the length of what follows.
///
/// # Errors
/// Another magic number, or too long.
pub fn decode_length(head: [u8; 8]) -> Result<usize, PeerMetadataError> {
    let [a, b, c, d, e, f, g, h] = head;
    if u32::from_be_bytes([a, b, c, d]) != MAGIC {
        return Err(PeerMetadataError::Magic);
    }
    let length = u32::from_be_bytes([e, f, g, h]) as usize;
    if length > MAX_METADATA { Err(PeerMetadataError::TooLong(length)) } else { Ok(length) }
}

/// The peers that a thread has heard of, by their id. An id says nothing of itself: what is remembered counts only for
/// the very same bytes.
#[derive(Default)]
pub struct Peers(RefCell<HashMap<Box<[u8]>, Known>>);

/// The bytes, and what they say.
type Known = (HeaderValue, Arc<WorkloadInfo>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("known", &self.0.borrow().len()).finish()
    }
}

impl Peers {
    /// The workload that the headers describe; `None` when they cannot be read.
    pub fn get(&self, id: Option<&HeaderValue>, value: &HeaderValue) -> Option<Arc<WorkloadInfo>> {
        let id = id.map(HeaderValue::as_bytes).unwrap_or_default();
        if let Some((seen, workload)) = self.0.borrow().get(id)
            && seen == value
        {
            return Some(workload.clone());
        }
        if id.len() > MAX_VALUE {
            return None;
        }
        let workload = match decode_header(value.as_bytes()) {
            Ok(workload) => Arc::new(workload),
            Err(error) => {
                tracing::debug!(%error, "peer metadata not read");
                return None;
            }
        };
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_PEERS {
            // Rare: more peers than fit talk to one workload. Whoever still talks comes back with its next request.
            known.clear();
        }
        known.insert(id.into(), (value.clone(), workload.clone()));
        Some(workload)
    }
}

/// What the accepting side learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The client.
    pub peer: Option<Arc<WorkloadInfo>>,
    /// Bytes of the connection that were read although they were no preamble.
    pub leftover: Bytes,
}

/// The accepting side of an exchange. A client that begins with something else, or waits for the server, agreed to the
/// protocol without speaking it (a proxy without this extension): its bytes are handed back and it is sent nothing.
///
/// # Errors
/// The connection broke, or what follows the magic number is wrong.
pub async fn accept_exchange<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    own: &OwnMetadata,
    limit: Duration,
) -> Result<Accepted, PeerMetadataError> {
    let mut head = [0; 8];
    let mut filled = 0;
    let read = timeout(limit, async {
        // What has been read can be told from anything else at the first byte that differs.
        while filled < head.len()
            && head.iter().take(filled.min(4)).eq(MAGIC.to_be_bytes().iter().take(filled.min(4)))
        {
            match io.read(head.get_mut(filled..).unwrap_or_default()).await {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) => return Err(PeerMetadataError::Io(error)),
            }
        }
        Ok(())
    })
    .await;
    match read {
        Ok(read) => read?,
        Err(_) if filled == 0 => return Ok(Accepted::default()),
        Err(_) => return Err(PeerMetadataError::TimedOut),
    }
    let length = match decode_length(head) {
        _ if filled < head.len() => None,
        Err(PeerMetadataError::Magic) => None,
        length => Some(length?),
    };
    let Some(length) = length else {
        let leftover = Bytes::copy_from_slice(head.get(..filled).unwrap_or_default());
        return Ok(Accepted { peer: None, leftover });
    };
    let peer = timeout(limit, async {
        let peer = read_body(io, length).await?;
        io.write_all(&own.preamble).await.map_err(PeerMetadataError::Io)?;
        io.flush().await.map_err(PeerMetadataError::Io)?;
        Ok(peer)
    })
    .await
    .map_err(|_| PeerMetadataError::TimedOut)??;
    Ok(Accepted { peer: Some(peer), leftover: Bytes::new() })
}

/// The connecting side of an exchange.
///
/// # Errors
/// The connection broke, or the peer sent something else, or nothing.
pub async fn connect_exchange<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    own: &OwnMetadata,
    limit: Duration,
) -> Result<Arc<WorkloadInfo>, PeerMetadataError> {
    timeout(limit, async {
        io.write_all(&own.preamble).await.map_err(PeerMetadataError::Io)?;
        io.flush().await.map_err(PeerMetadataError::Io)?;
        let mut head = [0; 8];
        io.read_exact(&mut head).await.map_err(PeerMetadataError::Io)?;
        read_body(io, decode_length(head)?).await
    })
    .await
    .map_err(|_| PeerMetadataError::TimedOut)?
}

async fn read_body<IO: AsyncRead + Unpin>(
    io: &mut IO,
    length: usize,
) -> Result<Arc<WorkloadInfo>, PeerMetadataError> {
    let mut body = vec![0; length];
    io.read_exact(&mut body).await.map_err(PeerMetadataError::Io)?;
    decode_exchange(&body).map(Arc::new)
}

#[cfg(test)]
mod tests;
