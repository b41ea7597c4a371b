//! Whether a replica may lead: decided from the Lease alone, without the clocks of others.
//!
//! A lease that did not change for its whole duration, by our own clock, has been left. Times in it are for people.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};

/// For how long a lease holds after it was renewed.
pub const DURATION: Duration = Duration::from_secs(15);
const DURATION_SECONDS: i32 = 15;

/// What a replica has seen of the lease.
#[derive(Debug, Default)]
pub struct Observer {
    /// The lease as it was last seen to differ, and when that was.
    last: Option<(LeaseSpec, Instant)>,
}

/// What a replica is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this, and lead if that succeeds.
    Take(Box<LeaseSpec>),
    /// Another one leads.
    Wait,
}

impl Observer {
    /// What `me` is to do about the lease that is there.
    pub fn step(
        &mut self,
        lease: Option<&LeaseSpec>,
        me: &str,
        now: Timestamp,
        clock: Instant,
    ) -> Step {
        let Some(lease) = lease else { return Step::Take(Box::new(taken(None, me, now))) };
        let seen = match &self.last {
            Some((last, seen)) if last == lease => *seen,
            _ => {
                self.last = Some((lease.clone(), clock));
                clock
            }
        };
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        let duration = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs);
        if holder == me || holder.is_empty() || clock.duration_since(seen) >= duration {
            Step::Take(Box::new(taken(Some(lease), me, now)))
        } else {
            Step::Wait
        }
    }
}

/// The lease as `me` holds it.
fn taken(lease: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let old = lease.cloned().unwrap_or_default();
    let mine = old.holder_identity.as_deref() == Some(me);
    let now = MicroTime(now);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        acquire_time: if mine { old.acquire_time } else { Some(now.clone()) },
        renew_time: Some(now),
        lease_transitions: match (mine, lease) {
            (true, _) => old.lease_transitions,
            (false, None) => Some(0),
            (false, Some(_)) => Some(old.lease_transitions.unwrap_or(0).saturating_add(1)),
        },
        ..LeaseSpec::default()
    }
}

/// The lease when its holder gives it up: the next one need not wait.
pub fn released(lease: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..lease.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test {
        observer: Observer,
        start: Instant,
    }

    impl Default for Test {
        fn default() -> Self {
            Self { observer: Observer::default(), start: Instant::now() }
        }
    }

    impl Test {
        fn step(&mut self, lease: Option<&LeaseSpec>, seconds: u64) -> Step {
            let clock = self.start + Duration::from_secs(seconds);
            self.observer.step(lease, "me", at(seconds), clock)
        }

        fn taken(&mut self, lease: Option<&LeaseSpec>, seconds: u64) -> LeaseSpec {
            match self.step(lease, seconds) {
                Step::Take(lease) => *lease,
                Step::Wait => panic!("waits"),
            }
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap()
    }

    fn lease(holder: &str, renewed: u64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime(at(0))),
            renew_time: Some(MicroTime(at(renewed))),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_that_nobody_has_is_taken_at_once() {
        let mut test = Test::default();
        let taken = test.taken(None, 5);
        assert_eq!(
            taken,
            LeaseSpec {
                lease_transitions: Some(0),
                acquire_time: Some(MicroTime(at(5))),
                ..lease("me", 5)
            }
        );
        let taken = test.taken(Some(&lease("", 1)), 5);
        assert_eq!(
            taken,
            LeaseSpec {
                lease_transitions: Some(4),
                acquire_time: Some(MicroTime(at(5))),
                ..lease("me", 5)
            }
        );
    }

    #[test]
    fn ones_own_lease_is_renewed_and_stays_the_same_one() {
        assert_eq!(Test::default().taken(Some(&lease("me", 1)), 9), lease("me", 9));
    }

    #[test]
    fn anothers_lease_is_taken_when_it_was_not_renewed_for_its_duration_by_our_clock() {
        let mut test = Test::default();
        // However old it says that it is: clocks differ.
        assert_eq!(test.step(Some(&lease("other", 0)), 100), Step::Wait);
        assert_eq!(test.step(Some(&lease("other", 0)), 114), Step::Wait);
        assert_eq!(test.step(Some(&lease("other", 1)), 115), Step::Wait, "renewed");
        assert_eq!(test.step(Some(&lease("other", 1)), 129), Step::Wait);
        assert_eq!(test.taken(Some(&lease("other", 1)), 130).holder_identity.unwrap(), "me");
    }

    #[test]
    fn a_lease_that_was_released_is_free() {
        let released = released(&lease("other", 1), at(2));
        let mut test = Test::default();
        assert_eq!(test.taken(Some(&released), 2).lease_transitions, Some(4));
    }
}
