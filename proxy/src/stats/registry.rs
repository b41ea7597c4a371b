//! Where the threads' series come together.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
};

use foldhash::HashMap;

use super::{
    cells::{Counter, Gauge},
    labels::TrafficLabels,
    traffic::{Cells, Series, Traffic},
};

/// Series of traffic that one thread keeps.
const MAX_SERIES: usize = 2_000;
/// Label sets that one thread keeps; their series are bounded on their own.
const MAX_LABEL_SETS: usize = 1_000;
/// Named counters and gauges that one thread keeps. They are not evicted: whoever has one keeps it.
const MAX_NAMED: usize = 8_192;
/// Messages that a thread leaves in the queue before it looks after them itself.
const QUEUE: usize = 256;
/// Series that make room at once.
const EVICT: usize = MAX_SERIES / 10;

/// What a data thread tells the registry.
#[derive(Debug)]
pub(super) enum Message {
    Series(Series),
    /// The address of the cells of a series that was evicted.
    Forget(usize),
    Counter(Box<str>, Counter),
    Gauge(Box<str>, Gauge),
}

/// The process's metrics. Belongs to the control thread and whoever makes [`ThreadStats`]; data threads never lock it.
#[derive(Debug)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    /// Cloned for each thread.
    sender: mpsc::Sender<Message>,
}

#[derive(Debug)]
pub(super) struct Inner {
    messages: mpsc::Receiver<Message>,
    /// By the address of the cells, which are alive as long as they are here.
    pub series: HashMap<usize, Series>,
    pub counters: HashMap<Box<str>, Vec<Arc<AtomicU64>>>,
    pub gauges: HashMap<Box<str>, Vec<Arc<AtomicI64>>>,
    pub evicted: u64,
}

impl Default for Registry {
    fn default() -> Self {
        let (sender, messages) = mpsc::channel();
        let inner = Inner {
            messages,
            series: HashMap::default(),
            counters: HashMap::default(),
            gauges: HashMap::default(),
            evicted: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), sender }
    }
}

impl Registry {
    /// What one data thread counts with.
    pub fn thread(&self) -> ThreadStats {
        ThreadStats(Rc::new(Thread {
            sender: self.sender.clone(),
            inner: self.inner.clone(),
            told: Cell::new(0),
            labels: RefCell::default(),
            series: RefCell::default(),
            named: RefCell::default(),
            evictions: Cell::new(0),
        }))
    }

    /// The registry's state with everything that the threads have told so far.
    pub(super) fn collect(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.drain();
        inner
    }
}

impl Inner {
    fn drain(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Series(series) => {
                    self.series.insert(Arc::as_ptr(&series.cells) as usize, series);
                }
                Message::Forget(cells) => {
                    self.evicted += u64::from(self.series.remove(&cells).is_some());
                }
                Message::Counter(name, cell) => {
                    self.counters.entry(name).or_default().push(cell.0);
                }
                Message::Gauge(name, cell) => {
                    self.gauges.entry(name).or_default().push(cell.0);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Named {
    Counter(Counter),
    Gauge(Gauge),
}

/// A data thread's metrics. Clones are the same.
#[derive(Clone)]
pub struct ThreadStats(Rc<Thread>);

struct Thread {
    sender: mpsc::Sender<Message>,
    inner: Arc<Mutex<Inner>>,
    told: Cell<usize>,
    labels: RefCell<HashMap<Arc<TrafficLabels>, Rc<Traffic>>>,
    series: RefCell<HashMap<usize, Arc<Cells>>>,
    named: RefCell<HashMap<Box<str>, Named>>,
    evictions: Cell<u64>,
}

impl fmt::Debug for ThreadStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadStats").finish_non_exhaustive()
    }
}

impl ThreadStats {
    /// The traffic with these labels. Costs a lookup by all of them: callers keep what they get.
    pub fn traffic(&self, labels: &TrafficLabels) -> Rc<Traffic> {
        let mut kept = self.0.labels.borrow_mut();
        if let Some(traffic) = kept.get(labels) {
            return traffic.clone();
        }
        if kept.len() >= MAX_LABEL_SETS {
            kept.retain(|_, traffic| Rc::strong_count(traffic) > 1);
            if kept.len() >= MAX_LABEL_SETS {
                // Callers keep so many that the index gives up; the series behind it stay bounded and are merged by
                // their labels when they are read.
                kept.clear();
            }
        }
        let labels = Arc::new(labels.clone());
        let traffic = Rc::new(Traffic::new(labels.clone(), self.clone()));
        kept.insert(labels, traffic.clone());
        traffic
    }

    /// The counter of this name, in Envoy's dotted form (`http.inbound_0.0.0.0_8080.downstream_rq_total`). Callers keep
    /// it. A name that is already a gauge's, and one too many, get a counter that nobody sees.
    pub fn counter(&self, name: &str) -> Counter {
        let mut named = self.0.named.borrow_mut();
        match named.get(name) {
            Some(Named::Counter(counter)) => return counter.clone(),
            Some(Named::Gauge(_)) => return Counter::default(),
            None if named.len() >= MAX_NAMED => return Counter::default(),
            None => {}
        }
        let counter = Counter::default();
        named.insert(name.into(), Named::Counter(counter.clone()));
        self.tell(Message::Counter(name.into(), counter.clone()));
        counter
    }

    /// The gauge of this name. Callers keep it.
    pub fn gauge(&self, name: &str) -> Gauge {
        let mut named = self.0.named.borrow_mut();
        match named.get(name) {
            Some(Named::Gauge(gauge)) => return gauge.clone(),
            Some(Named::Counter(_)) => return Gauge::default(),
            None if named.len() >= MAX_NAMED => return Gauge::default(),
            None => {}
        }
        let gauge = Gauge::default();
        named.insert(name.into(), Named::Gauge(gauge.clone()));
        self.tell(Message::Gauge(name.into(), gauge.clone()));
        gauge
    }

    fn tell(&self, message: Message) {
        // The registry lives as long as the process; when it is gone, nobody reads metrics any more.
        let _ = self.0.sender.send(message);
        // Nobody may ever ask for the text: then the queue is emptied here, unless that would mean waiting.
        self.0.told.set(self.0.told.get() + 1);
        if self.0.told.get() >= QUEUE
            && let Ok(mut inner) = self.0.inner.try_lock()
        {
            self.0.told.set(0);
            inner.drain();
        }
    }

    pub(super) fn evictions(&self) -> u64 {
        self.0.evictions.get()
    }

    pub(super) fn holds(&self, cells: &Arc<Cells>) -> bool {
        self.0.series.borrow().contains_key(&(Arc::as_ptr(cells) as usize))
    }

    /// Keeps a new series; those that were idle for longest make room.
    pub(super) fn register(&self, series: Series) -> Arc<Cells> {
        let mut kept = self.0.series.borrow_mut();
        if kept.len() >= MAX_SERIES {
            let mut by_age: Vec<_> =
                kept.iter().map(|(key, cells)| (cells.last_used.load(Relaxed), *key)).collect();
            by_age.select_nth_unstable(EVICT);
            for (_, key) in by_age.iter().take(EVICT) {
                if let Some(cells) = kept.remove(key) {
                    self.tell(Message::forget(&cells));
                }
            }
            self.0.evictions.set(self.0.evictions.get() + 1);
        }
        let cells = series.cells.clone();
        kept.insert(Arc::as_ptr(&cells) as usize, cells.clone());
        self.tell(Message::Series(series));
        cells
    }
}
