use clap::{CommandFactory, Parser};

use super::*;

const NEEDED: &[&str] = &[
    "weft-proxy",
    "sidecar",
    "--pod-name=a-0",
    "--namespace=default",
    "--service-account=a",
    "--pod-address=127.20.1.1",
    "--app-address=127.20.1.2",
    "--control-plane=localhost:15012",
    "--control-plane-root=root.pem",
    "--token-file=token",
];

fn settings(more: &[&str]) -> Result<Settings, SettingsError> {
    let Some(Command::Sidecar(args)) =
        Cli::try_parse_from(NEEDED.iter().chain(more)).expect("arguments parse").command
    else {
        panic!("another command")
    };
    Settings::new(*args, None)
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_what_the_help_says() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.workload_name, "a-0");
    assert_eq!(settings.control_plane.san, "localhost");
    assert_eq!(settings.control_plane.port, 15012);
    assert_eq!(settings.ports, Ports::default());
    assert_eq!(settings.drain_duration, Duration::from_secs(45));
    assert_eq!(settings.certificate_ttl, Duration::from_secs(86_400));
    assert_eq!(settings.on_demand_idle, Duration::from_secs(600));
    assert_eq!(settings.access_log, None);
    assert!(settings.named_services.is_empty());
    let node = settings.node_info();
    assert_eq!(node.id(), "sidecar~127.20.1.1~a-0.default~default.svc.cluster.local");
}

#[test]
fn every_named_host_takes_the_next_address_of_the_range() {
    let settings = settings(&[
        "--outbound-range=127.20.1.16/29",
        "--outbound=user-service:8080",
        "--outbound=payment-service:9090",
        "--outbound=User-Service:8081,user-service:8080",
    ])
    .unwrap();
    let service = |bind: &str, host: &str, port| NamedService {
        bind: bind.parse().unwrap(),
        host: host.into(),
        port,
    };
    assert_eq!(
        settings.named_services[..],
        [
            service("127.20.1.17:8080", "user-service", 8080),
            service("127.20.1.18:9090", "payment-service", 9090),
            service("127.20.1.17:8081", "user-service", 8081),
        ]
    );
    assert_eq!(settings.hosts_lines(), "127.20.1.17 user-service\n127.20.1.18 payment-service\n");
}

#[test]
fn named_services_without_room_are_refused() {
    assert_eq!(settings(&["--outbound=b:80"]).unwrap_err(), SettingsError::RangeMissing);
    assert_eq!(
        settings(&["--outbound-range=127.20.1.16/31", "--outbound=b:80,c:80,d:80"]).unwrap_err(),
        SettingsError::RangeFull { range: "127.20.1.16/31".parse().unwrap(), host: "d".into() }
    );
}

#[test]
fn values_of_another_form_are_refused() {
    for argument in [
        "--label=app",
        "--outbound=b",
        "--outbound=b:0",
        "--outbound=:80",
        "--drain-duration=45",
        "--concurrency=0",
        "--admin-port=70000",
    ] {
        let arguments = NEEDED.iter().chain([&argument]);
        assert!(Cli::try_parse_from(arguments).is_err(), "{argument}");
    }
    let Some(Command::Sidecar(mut args)) = Cli::try_parse_from(NEEDED).unwrap().command else {
        panic!("another command")
    };
    args.proxy.control_plane = Some("localhost".into());
    assert_eq!(
        Settings::new(*args, None).unwrap_err(),
        SettingsError::ControlPlane("localhost".into())
    );
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, milliseconds) in [
        ("45s", Some(45_000)),
        ("250ms", Some(250)),
        ("1h30m", Some(5_400_000)),
        ("1d", Some(86_400_000)),
        ("0s", Some(0)),
        ("45", None),
        ("s", None),
        ("", None),
        ("1x", None),
        ("-1s", None),
        ("99999999999999999999s", None),
        ("9223372036854775807d", None),
    ] {
        assert_eq!(parse_duration(text).ok(), milliseconds.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn a_router_has_no_application_and_asks_for_every_listener() {
    let arguments = NEEDED
        .iter()
        .filter(|argument| !argument.starts_with("--app-address"))
        .map(|argument| if *argument == "sidecar" { "router" } else { *argument });
    let Some(Command::Router(args)) = Cli::try_parse_from(arguments).unwrap().command else {
        panic!("another command")
    };
    let settings = Settings::router(*args, None).unwrap();
    assert_eq!(settings.listeners(), Subscribed::All);
    let node = settings.node_info();
    assert_eq!(node.id(), "router~127.20.1.1~a-0.default~default.svc.cluster.local");
    assert_eq!((node.app_address, node.on_demand), (None, false));
    assert!(!settings.is_captured());
}

#[test]
fn a_router_in_a_pod_needs_no_flags_and_captures_nothing() {
    let environment = [
        ("POD_NAME", "ingress-0"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ingress"),
        ("INSTANCE_IP", "10.1.2.3"),
    ];
    let pod = Pod::read(
        |name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()),
        |_| None,
    )
    .unwrap();
    let Some(Command::Router(args)) =
        Cli::try_parse_from(["weft-proxy", "router"]).unwrap().command
    else {
        panic!("another command")
    };
    let settings = Settings::router(*args, pod).unwrap();
    assert_eq!(settings.listeners(), Subscribed::All);
    assert_eq!(settings.interception, Interception::Redirect, "every address of the pod is meant");
    assert!(!settings.is_captured());
    assert_eq!(settings.control_plane.host, "weft-operator.weft-system.svc");
}
