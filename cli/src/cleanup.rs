//! `weft cleanup`: removes what the operator made at run time, once the chart is gone.
//!
//! The chart runs it after `helm uninstall`. It removes only what is marked as the operator's own, and a definition only
//! when no resource is left of it: nobody's resources are lost.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, bail};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Preconditions},
};
use serde::de::DeserializeOwned;
use weft_crds::Kind;

use crate::{
    kubernetes::{self, Cluster, Target},
    names::{CA_SECRET, LEASE, MANAGED_BY, OPERATOR, PART_OF, ROOT_CONFIG_MAP},
    output,
};

/// An operator that was told to stop serves a little longer.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// Remove what the operator left in the cluster: its Lease, the Secret of its authority, the root certificate in
/// namespaces, and definitions that no resource is left of.
///
/// Run by the chart after `helm uninstall`. Refuses while an operator runs, as it would make everything again.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Removes, and prints what.
///
/// # Errors
/// When an operator goes on running, or something cannot be removed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    kubernetes::block_on(async {
        let cluster = args.target.connect().await?;
        operator_gone(&cluster).await?;
        let namespace = &cluster.namespace;
        remove_own(&cluster.own::<Lease>(), LEASE, &format!("Lease {namespace}/{LEASE}")).await?;
        remove_own(&cluster.own::<Secret>(), CA_SECRET, &format!("Secret {namespace}/{CA_SECRET}"))
            .await?;
        remove_roots(&cluster).await?;
        for kind in Kind::ALL {
            remove_definition(&cluster, kind).await?;
        }
        Ok(())
    })
}

async fn operator_gone(cluster: &Cluster) -> anyhow::Result<()> {
    let pods = cluster.own::<Pod>();
    let of_operator = ListParams::default().labels(&format!("app={OPERATOR}"));
    let start = tokio::time::Instant::now();
    loop {
        let left = kubernetes::list(&pods, of_operator.clone()).await?;
        let Some(pod) = left.first() else { return Ok(()) };
        if start.elapsed() > PATIENCE {
            bail!(
                "the operator still runs (pod {}/{}): uninstall the chart first",
                cluster.namespace,
                pod.name_any()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Removes an object that carries the operator's mark.
async fn remove_own<K>(api: &Api<K>, name: &str, label: &str) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let Some(object) = kubernetes::get(api, name).await? else { return Ok(()) };
    if is_marked(&object, MANAGED_BY) {
        delete(api, &object).await.with_context(|| label.to_owned())?;
        return output::print(&format!("removed {label}\n"));
    }
    output::print(&format!("kept {label}: the operator did not make it\n"))
}

async fn remove_roots(cluster: &Cluster) -> anyhow::Result<()> {
    let named = ListParams::default().fields(&format!("metadata.name={ROOT_CONFIG_MAP}"));
    let roots = kubernetes::list(&cluster.all::<ConfigMap>(), named).await?;
    let mut removed = 0;
    for root in roots.iter().filter(|root| is_marked(*root, MANAGED_BY)) {
        let namespace = root.namespace().unwrap_or_default();
        let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &namespace);
        delete(&api, root)
            .await
            .with_context(|| format!("ConfigMap {namespace}/{ROOT_CONFIG_MAP}"))?;
        removed += 1;
    }
    output::print(&format!("removed the root certificate from {removed} namespaces\n"))
}

async fn remove_definition(cluster: &Cluster, kind: Kind) -> anyhow::Result<()> {
    let definitions = cluster.all::<CustomResourceDefinition>();
    let name = format!("{}.{}", kind.plural(), kind.group());
    let Some(definition) = kubernetes::get(&definitions, &name).await? else { return Ok(()) };
    if !is_marked(&definition, PART_OF) {
        return output::print(&format!("kept the definition {name}: it is not Weft's\n"));
    }
    let resources: Api<DynamicObject> =
        Api::all_with(cluster.client.clone(), &kubernetes::resource(kind));
    // One is enough to keep the definition; the API server says how many more there are.
    let left =
        resources.list(&ListParams::default().limit(1)).await.with_context(|| name.clone())?;
    if !left.items.is_empty() {
        let more = left.metadata.remaining_item_count.unwrap_or_default();
        let count = i64::try_from(left.items.len()).unwrap_or(i64::MAX).saturating_add(more);
        return output::print(&format!(
            "kept the definition {name}: {count} resources of this kind are left\n"
        ));
    }
    delete(&definitions, &definition).await.with_context(|| name.clone())?;
    output::print(&format!("removed the definition {name}\n"))
}

fn is_marked(object: &impl Resource, (label, value): (&str, &str)) -> bool {
    object.meta().labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|v| v == value)
}

/// Deletes this very object, not one of its name that came since. One that is gone is no failure.
async fn delete<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    let parameters =
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let name = object.meta().name.clone().unwrap_or_default();
    match api.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
