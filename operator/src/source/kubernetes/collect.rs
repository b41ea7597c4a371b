//! Makes batches of what the watches say.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{
    kinds::WatchId,
    watch::{Message, State},
};
use crate::source::{Batch, Event, Problem, Report, Severity};

/// So many messages make a batch at most.
const AT_ONCE: usize = 4096;

/// What the watches said so far.
pub(super) struct Collector {
    states: BTreeMap<WatchId, State>,
    /// How many objects each watch has.
    objects: BTreeMap<WatchId, usize>,
    /// Events that nobody was told yet.
    events: Vec<Event>,
    /// Every kind was read once.
    complete: bool,
    report: watch::Sender<Arc<Report>>,
}

impl Collector {
    pub fn new(watches: impl Iterator<Item = WatchId>, report: watch::Sender<Arc<Report>>) -> Self {
        Self {
            states: watches.map(|watch| (watch, State::Pending)).collect(),
            objects: BTreeMap::new(),
            events: Vec::new(),
            complete: false,
            report,
        }
    }

    /// Runs until the watches or the index have ended.
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        batches: mpsc::Sender<Batch>,
    ) {
        let mut received = Vec::new();
        self.publish();
        while messages.recv_many(&mut received, AT_ONCE).await > 0 {
            for message in received.drain(..) {
                self.hear(message);
            }
            if let Some(batch) = self.batch()
                && batches.send(batch).await.is_err()
            {
                return;
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Events { from, events, objects } => {
                self.objects.insert(from, objects);
                self.events.extend(events);
            }
            Message::State(watch, state) => {
                let old = self.states.insert(watch.clone(), state.clone());
                if old.as_ref() != Some(&state) {
                    log(&watch, &state);
                }
            }
        }
    }

    /// What the index is to be told, once everything was read.
    fn batch(&mut self) -> Option<Batch> {
        let read = |(watch, state): (&WatchId, &State)| match state {
            State::Synced | State::Missing => true,
            State::Forbidden(_) => watch.is_optional(),
            State::Pending | State::Failing(_) => false,
        };
        self.complete |= self.states.iter().all(read);
        let changed = self.publish();
        if !self.complete || (self.events.is_empty() && !changed) {
            return None;
        }
        let events = std::mem::take(&mut self.events);
        Some(Batch { events, report: self.report.borrow().clone() })
    }

    /// Publishes the report, and says whether it is another one.
    fn publish(&self) -> bool {
        let objects = self.objects.values().sum();
        let missing_rights = self.states.values().filter_map(|state| match state {
            State::Forbidden(rule) => Some(rule.clone()),
            _ => None,
        });
        let report = Report {
            files: 0,
            objects,
            problems: self.problems(),
            missing_rights: missing_rights.collect(),
        };
        self.report.send_if_modified(|old| {
            let changed = **old != report;
            if changed {
                *old = Arc::new(report);
            }
            changed
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = |watch: &WatchId, severity, message: String| Problem {
            file: PathBuf::from(watch.kind.as_str()),
            severity,
            message,
        };
        let problems = self.states.iter().filter_map(|(kind, state)| match state {
            State::Synced => None,
            // Nothing is wrong with what only takes its time.
            State::Pending => {
                Some(problem(kind, Severity::Warning, format!("{kind}: not read yet")))
            }
            State::Missing => Some(problem(
                kind,
                Severity::Warning,
                format!(
                    "{kind}: the API server does not know this kind; is its definition installed?"
                ),
            )),
            State::Forbidden(rule) => {
                Some(problem(kind, Severity::Error, format!("{kind}: {rule}")))
            }
            State::Failing(reason) => Some(problem(
                kind,
                Severity::Error,
                format!("{kind}: cannot be read at the moment: {reason}"),
            )),
        });
        problems.collect()
    }
}

fn log(kind: &WatchId, state: &State) {
    match state {
        State::Pending => {}
        State::Synced => tracing::debug!(%kind, "followed"),
        State::Missing => tracing::warn!(%kind, "the API server does not know this kind"),
        State::Forbidden(rule) => tracing::error!(%kind, "{rule}"),
        State::Failing(reason) => {
            tracing::warn!(%kind, reason, "cannot be read at the moment, what was read stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_index::Kind;

    use super::*;
    use crate::source::object::ObjectKey;

    const KINDS: [Kind; 2] = [Kind::Service, Kind::Pod];

    struct Test {
        collector: Collector,
        report: watch::Receiver<Arc<Report>>,
    }

    impl Default for Test {
        fn default() -> Self {
            let (sender, report) = watch::channel(Arc::default());
            Self { collector: Collector::new(KINDS.into_iter().map(WatchId::from), sender), report }
        }
    }

    impl Test {
        fn hear(&mut self, messages: Vec<Message>) -> Option<usize> {
            messages.into_iter().for_each(|message| self.collector.hear(message));
            self.collector.batch().map(|batch| batch.events.len())
        }

        fn problems(&self) -> Vec<String> {
            self.report.borrow().problems.iter().map(|p| p.message.clone()).collect()
        }
    }

    fn gone(kind: Kind, objects: usize) -> Message {
        let key = ObjectKey { kind, namespace: "shop".into(), name: "orders".into() };
        Message::Events { from: kind.into(), events: vec![Event::Delete(key)], objects }
    }

    #[test]
    fn the_first_batch_waits_for_every_kind_and_holds_all_of_them() {
        let mut test = Test::default();
        assert_eq!(test.hear(vec![gone(Kind::Service, 3)]), None);
        assert_eq!(test.hear(vec![Message::State(Kind::Service.into(), State::Synced)]), None);
        assert_eq!(test.problems(), ["Pod: not read yet"]);
        assert_eq!(
            test.hear(vec![gone(Kind::Pod, 4), Message::State(Kind::Pod.into(), State::Synced)]),
            Some(2)
        );
        assert_eq!(test.report.borrow().objects, 7);
        assert_eq!(test.problems(), [""; 0]);
    }

    #[test]
    fn a_kind_that_does_not_exist_keeps_nobody_waiting_and_one_that_may_not_be_read_does() {
        let mut test = Test::default();
        let missing = Message::State(Kind::Service.into(), State::Missing);
        let forbidden = Message::State(Kind::Pod.into(), State::Forbidden("add a rule".into()));
        assert_eq!(test.hear(vec![missing, forbidden]), None);
        assert_eq!(test.report.borrow().missing_rights, ["add a rule".to_owned()].into());
        assert_eq!(test.hear(vec![Message::State(Kind::Pod.into(), State::Synced)]), Some(0));
        assert!(test.report.borrow().missing_rights.is_empty());
    }

    #[test]
    fn what_fails_later_is_reported_and_changes_nothing() {
        let mut test = Test::default();
        for kind in KINDS {
            test.hear(vec![Message::State(kind.into(), State::Synced)]);
        }
        assert_eq!(test.hear(vec![]), None, "nothing new");
        let failing = Message::State(Kind::Pod.into(), State::Failing("no route".into()));
        assert_eq!(test.hear(vec![failing]), Some(0), "a report without events");
        assert_eq!(test.problems(), ["Pod: cannot be read at the moment: no route"]);
        assert_eq!(test.hear(vec![gone(Kind::Service, 0)]), Some(1), "others go on");
    }
    #[test]
    fn secrets_that_may_not_be_read_are_reported_by_namespace_and_keep_nobody_waiting() {
        let (sender, report) = watch::channel(Arc::default());
        let secrets =
            |namespace: &str| WatchId { kind: Kind::Secret, namespace: Some(namespace.to_owned()) };
        let all = [WatchId::from(Kind::Pod), secrets("edge"), secrets("other")];
        let mut test = Test { collector: Collector::new(all.into_iter(), sender), report };
        let states = vec![
            Message::State(Kind::Pod.into(), State::Synced),
            Message::State(secrets("edge"), State::Synced),
        ];
        assert_eq!(test.hear(states), None);
        let forbidden = State::Forbidden("cannot list secrets".into());
        assert_eq!(test.hear(vec![Message::State(secrets("other"), forbidden)]), Some(0));
        assert_eq!(test.problems(), ["Secret of namespace other: cannot list secrets"]);
    }
}
