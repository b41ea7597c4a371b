//! Writing access logs: one thread for the process, fed through a bounded channel, so that no data thread waits for a disk.
//!
//! Lines that do not fit into the channel are dropped and counted. Files are opened when the first line for them comes,
//! and again when they were moved away (log rotation) or could not be written.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

/// Lines that may wait.
const QUEUE: usize = 16_384;
/// Bytes that are written at once at most.
const BATCH: usize = 64 * 1024;
/// How often it is looked whether a file is still where it was.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
enum Message {
    Line(Arc<str>, String),
    Flush(SyncSender<()>),
}

/// Where lines are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

static WRITER: LazyLock<Writer> = LazyLock::new(|| {
    let (lines, receiver) = sync_channel(QUEUE);
    let spawned = std::thread::Builder::new()
        .name("weft-access-log".into())
        .spawn(move || write_all(&receiver));
    if let Err(error) = spawned {
        // Lines are then dropped and counted.
        tracing::error!(%error, "cannot start the access log's thread");
    }
    Writer { lines, dropped: Arc::default() }
});

/// The process's writer. Its thread starts with the first use.
pub fn process() -> &'static Writer {
    &WRITER
}

impl Writer {
    /// Hands in a line for a file. Never waits.
    pub fn write(&self, path: &Arc<str>, line: String) {
        match self.lines.try_send(Message::Line(path.clone(), line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed in before is written, at most for so long. For the end of the process.
    pub fn flush(&self, limit: Duration) {
        let (done, finished) = sync_channel(1);
        let deadline = Instant::now() + limit;
        let mut message = Message::Flush(done);
        loop {
            match self.lines.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return,
            }
        }
        let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// A log's file and what waits for it.
struct Target {
    output: Output,
    buffer: Vec<u8>,
    checked: Instant,
}

enum Output {
    Stdout,
    Stderr,
    File(File),
    /// Could not be opened; tried again at the next check.
    Broken,
}

impl Target {
    fn open(path: &str) -> Self {
        let output = match path {
            "/dev/stdout" => Output::Stdout,
            "/dev/stderr" => Output::Stderr,
            path => match OpenOptions::new().append(true).create(true).open(path) {
                Ok(file) => Output::File(file),
                Err(error) => {
                    tracing::warn!(path, %error, "cannot open the access log");
                    Output::Broken
                }
            },
        };
        Self { output, buffer: Vec::new(), checked: Instant::now() }
    }

    fn flush(&mut self, path: &str) {
        if self.buffer.is_empty() {
            return;
        }
        if self.checked.elapsed() >= ROTATION_CHECK {
            self.checked = Instant::now();
            let moved = match &self.output {
                Output::File(file) => is_moved(file, path),
                Output::Broken => true,
                Output::Stdout | Output::Stderr => false,
            };
            if moved {
                self.output = Self::open(path).output;
            }
        }
        let result = match &mut self.output {
            Output::Stdout => io::stdout().write_all(&self.buffer),
            Output::Stderr => io::stderr().write_all(&self.buffer),
            Output::File(file) => file.write_all(&self.buffer),
            Output::Broken => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(path, %error, "cannot write the access log");
            if matches!(self.output, Output::File(_)) {
                self.output = Output::Broken;
            }
        }
        self.buffer.clear();
    }
}

/// Whether the path no longer leads to the open file.
fn is_moved(file: &File, path: &str) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino() || open.dev() != named.dev(),
        _ => true,
    }
}

fn write_all(messages: &Receiver<Message>) {
    let mut targets: HashMap<Arc<str>, Target> = HashMap::new();
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        let mut size = 0;
        let mut waiting = Vec::new();
        while let Some(message) = next.take() {
            match message {
                Message::Line(path, line) => {
                    size += line.len();
                    targets
                        .entry(path)
                        .or_insert_with_key(|path| Target::open(path))
                        .buffer
                        .extend_from_slice(line.as_bytes());
                }
                Message::Flush(done) => waiting.push(done),
            }
            if size < BATCH {
                next = messages.try_recv().ok();
            }
        }
        for (path, target) in &mut targets {
            target.flush(path);
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_their_files_in_order_also_after_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<str> = folder.path().join("a.log").to_str().unwrap().into();
        let writer = process();
        writer.write(&path, "one\n".into());
        writer.write(&path, "two\n".into());
        writer.flush(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "one\ntwo\n");
        let old = folder.path().join("a.log.1");
        std::fs::rename(&*path, &old).unwrap();
        // The file is looked for once a second; until then lines go to the moved one. None is lost.
        let mut written = 0;
        while !std::path::Path::new(&*path).exists() {
            writer.write(&path, "more\n".into());
            writer.flush(Duration::from_secs(10));
            written += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        let all =
            std::fs::read_to_string(&old).unwrap() + &std::fs::read_to_string(&*path).unwrap();
        assert_eq!(all.lines().filter(|line| *line == "more").count(), written);
    }
}
