//! Events of the operator's own pod, for what the people who run it must act on: rights that it lacks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::{sync::watch, time::timeout};

use super::{Cluster, events::Events};
use crate::source::Report;

/// What is still missing after this time is said again.
const AGAIN: Duration = Duration::from_secs(600);

/// Tells of the rights that the source lacks, until nobody reports any more.
pub async fn complain(cluster: Cluster, mut reports: watch::Receiver<Arc<Report>>) {
    let events = Events::new(&cluster);
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(cluster.pod),
        namespace: Some(cluster.namespace),
        ..ObjectReference::default()
    };
    let mut told = BTreeSet::new();
    loop {
        let missing = reports.borrow_and_update().missing_rights.clone();
        for right in missing.difference(&told) {
            events.warn(&pod, "MissingRight", right).await;
        }
        told = missing;
        match timeout(AGAIN, reports.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => told.clear(),
        }
    }
}
