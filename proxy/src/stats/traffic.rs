//! Istio's metrics of the traffic between two workloads.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::HashMap;

use super::{
    cells::Histogram,
    labels::{RequestProtocol, TrafficLabels},
    registry::{Message, ThreadStats},
};
use crate::{net::flags::ResponseFlags, shared::coarse_now};

/// What is counted of a request when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct HttpRecord {
    /// HTTP or gRPC.
    pub protocol: RequestProtocol,
    /// The response's status; 0 when the client went away before one.
    pub code: u16,
    /// gRPC's status, for gRPC.
    pub grpc_status: Option<u32>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// From the request's first byte to the response's last.
    pub duration: Duration,
    /// Head and body as they were received.
    pub request_bytes: u64,
    /// Head and body as they were sent.
    pub response_bytes: u64,
    /// gRPC messages of the request and of the response.
    pub messages: Option<(u64, u64)>,
}

/// What differs between the requests of one [`Traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub protocol: RequestProtocol,
    pub code: u16,
    pub grpc_status: Option<u32>,
    pub flags: ResponseFlags,
}

/// The numbers of one variant; one thread writes them.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub requests: AtomicU64,
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
    pub request_messages: AtomicU64,
    pub response_messages: AtomicU64,
    pub tcp_opened: AtomicU64,
    pub tcp_closed: AtomicU64,
    pub tcp_sent: AtomicU64,
    pub tcp_received: AtomicU64,
    /// Seconds on the coarse clock.
    pub last_used: AtomicU32,
}

/// A series as the registry sees it.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub labels: Arc<TrafficLabels>,
    pub variant: Variant,
    pub cells: Arc<Cells>,
}

fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The traffic between two workloads for a service, on one thread. Callers keep it as long as the labels hold.
pub struct Traffic {
    labels: Arc<TrafficLabels>,
    stats: ThreadStats,
    variants: RefCell<HashMap<Variant, Arc<Cells>>>,
    /// Evictions that the thread had seen when `variants` was last looked through.
    seen: Cell<u64>,
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").field("labels", &self.labels).finish_non_exhaustive()
    }
}

impl Traffic {
    pub(super) fn new(labels: Arc<TrafficLabels>, stats: ThreadStats) -> Self {
        Self { labels, stats, variants: RefCell::default(), seen: Cell::new(0) }
    }

    /// The labels that all its series share.
    pub fn labels(&self) -> &TrafficLabels {
        &self.labels
    }

    /// Counts a request that has ended.
    pub fn http(&self, record: &HttpRecord) {
        let cells = self.cells(Variant {
            protocol: record.protocol,
            code: record.code,
            grpc_status: record.grpc_status,
            flags: record.flags,
        });
        bump(&cells.requests, 1);
        cells.duration.observe(record.duration.as_secs_f64() * 1000.0);
        cells.request_bytes.observe(record.request_bytes as f64);
        cells.response_bytes.observe(record.response_bytes as f64);
        if let Some((request, response)) = record.messages {
            bump(&cells.request_messages, request);
            bump(&cells.response_messages, response);
        }
    }

    /// Counts a connection that was opened; the handle counts its bytes and its end.
    pub fn tcp(self: &Rc<Self>) -> TcpTraffic {
        let traffic = TcpTraffic { traffic: self.clone(), flags: Cell::default() };
        bump(&traffic.cells().tcp_opened, 1);
        traffic
    }

    /// Counts a connection that could not be passed on.
    pub fn tcp_failed(self: &Rc<Self>, flags: ResponseFlags) {
        let traffic = TcpTraffic { traffic: self.clone(), flags: Cell::new(flags) };
        bump(&traffic.cells().tcp_opened, 1);
    }

    fn cells(&self, variant: Variant) -> Arc<Cells> {
        let mut variants = self.variants.borrow_mut();
        if self.seen.replace(self.stats.evictions()) != self.stats.evictions() {
            variants.retain(|_, cells| self.stats.holds(cells));
        }
        let cells = variants.entry(variant).or_insert_with(|| {
            self.stats.register(Series {
                labels: self.labels.clone(),
                variant,
                cells: Arc::default(),
            })
        });
        let now = coarse_now();
        if cells.last_used.load(Relaxed) != now {
            cells.last_used.store(now, Relaxed);
        }
        cells.clone()
    }
}

/// A TCP connection's numbers. Dropping it counts the connection as closed.
#[derive(Debug)]
pub struct TcpTraffic {
    traffic: Rc<Traffic>,
    flags: Cell<ResponseFlags>,
}

impl TcpTraffic {
    fn cells(&self) -> Arc<Cells> {
        self.traffic.cells(Variant {
            protocol: RequestProtocol::Tcp,
            code: 0,
            grpc_status: None,
            flags: self.flags.get(),
        })
    }

    /// Adds bytes since the last call: received from the client, sent to it.
    pub fn bytes(&self, received: u64, sent: u64) {
        if received | sent != 0 {
            let cells = self.cells();
            bump(&cells.tcp_received, received);
            bump(&cells.tcp_sent, sent);
        }
    }

    /// What went wrong; counts for what is counted from now on.
    pub fn flags(&self, flags: ResponseFlags) {
        self.flags.set(flags);
    }
}

impl Drop for TcpTraffic {
    fn drop(&mut self) {
        bump(&self.cells().tcp_closed, 1);
    }
}

impl Message {
    /// The series whose cells these are is not kept any more.
    pub(super) fn forget(cells: &Arc<Cells>) -> Self {
        Self::Forget(Arc::as_ptr(cells) as usize)
    }
}
