//! Events: news for people about one object. Whoever writes them sees to it that nothing is said twice.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::Cluster;

/// The name under which the operator writes Events.
const CONTROLLER: &str = "weft.dev/weft-operator";
/// Kubernetes takes notes up to this length.
const MAX_NOTE: usize = 1024;
/// And names up to this one.
const MAX_NAME: usize = 253;

/// Writes Events in the name of one replica.
#[derive(Clone)]
pub struct Events {
    client: Client,
    pod: String,
}

impl Events {
    /// For this replica.
    pub fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client.clone(), pod: cluster.pod.clone() }
    }

    /// Tells of something that somebody must act on. Failing to do so is only logged.
    pub async fn warn(&self, about: &ObjectReference, reason: &str, message: &str) {
        let event = warning(&self.pod, about, reason, message, Timestamp::now());
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(reason, message, %error, "an Event cannot be written");
        }
    }
}

fn warning(
    pod: &str,
    about: &ObjectReference,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Event {
    let suffix = format!(".{:x}", now.as_nanosecond());
    let name = cut(about.name.as_deref().unwrap_or_default(), MAX_NAME - suffix.len());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}{suffix}")),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(pod, 128).to_owned()),
        action: Some("Apply".to_owned()),
        reason: Some(reason.to_owned()),
        regarding: Some(about.clone()),
        note: Some(shortened(message)),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn shortened(message: &str) -> String {
    if message.len() <= MAX_NOTE {
        return message.to_owned();
    }
    format!("{}...", cut(message, MAX_NOTE - 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fits_into_what_kubernetes_takes() {
        assert_eq!(shortened("short"), "short");
        let about = ObjectReference {
            name: Some("n".repeat(MAX_NAME)),
            namespace: Some("shop".into()),
            ..ObjectReference::default()
        };
        let event = warning("pod", &about, "Invalid", &"ä".repeat(MAX_NOTE), Timestamp::now());
        let note = event.note.unwrap();
        assert!(note.len() <= MAX_NOTE && note.ends_with("ä..."), "{}", note.len());
        assert_eq!(event.metadata.name.map(|name| name.len()), Some(MAX_NAME));
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
    }

    #[test]
    fn two_events_of_one_object_have_different_names() {
        let about = ObjectReference { name: Some("orders".into()), ..ObjectReference::default() };
        let at = |nanoseconds| Timestamp::from_nanosecond(nanoseconds).unwrap();
        let name = |now| warning("pod", &about, "Invalid", "m", now).metadata.name;
        assert_ne!(name(at(1_800_000_000_000_000_000)), name(at(1_800_000_000_000_000_001)));
    }
}
