//! Any bytes as any xDS resource: decoding ends, and does not panic.

use clap::Parser;
use weft_api::xds::google::protobuf::Any;
use weft_proxy::{
    control::decode::Decoder,
    settings::{Cli, Command, Settings},
};

thread_local! {
    static DECODER: Decoder = {
        let Some(Command::Sidecar(args)) = Cli::parse_from([
            "weft-proxy", "sidecar", "--pod-name=p", "--namespace=n", "--service-account=s",
            "--pod-address=127.0.0.1", "--app-address=127.0.0.1", "--control-plane=c:1",
            "--control-plane-root=r", "--token-file=t",
        ])
        .command else { panic!("these are a sidecar's arguments") };
        Decoder::new(&Settings::new(*args, None).expect("settings are valid")).expect("a decoder")
    };
}

pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let any = |name: &str| Any {
        type_url: format!("type.googleapis.com/envoy.{name}"),
        value: bytes.to_vec(),
    };
    DECODER.with(|decoder| match kind % 6 {
        0 => drop(decoder.listener("l", &any("config.listener.v3.Listener"))),
        1 => drop(decoder.route_configuration("r", &any("config.route.v3.RouteConfiguration"))),
        2 => drop(decoder.virtual_host("r/h", &any("config.route.v3.VirtualHost"))),
        3 => drop(decoder.cluster("", &any("config.cluster.v3.Cluster"))),
        4 => drop(decoder.assignment(&any("config.endpoint.v3.ClusterLoadAssignment"))),
        _ => drop(decoder.secret("", &any("extensions.transport_sockets.tls.v3.Secret"))),
    });
}
