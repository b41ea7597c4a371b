//! Listeners and filter chains.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weft_api::{
    names::{HTTP_PROXY, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND},
    xds::envoy::{
        config::{
            core::v3::{TrafficDirection as PbDirection, proxy_protocol_config::Version},
            listener::v3::{
                Filter, FilterChain as PbChain, FilterChainMatch as PbMatch,
                Listener as PbListener, ListenerFilter, filter, listener_filter,
            },
        },
        extensions::filters::{
            listener::{
                http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
                proxy_protocol::v3::ProxyProtocol as PbProxyProtocol,
                tls_inspector::v3::TlsInspector,
            },
            network::{
                http_connection_manager::v3::HttpConnectionManager, rbac::v3::Rbac as PbRbac,
                tcp_proxy::v3::TcpProxy,
            },
        },
    },
};

use super::{
    Context, access_log, http,
    invalid::{At, Invalid, each, refuse, refuse_all},
    rbac, tcp, tls,
    value::{cidr, flag, is, port, socket_addr, timeout_or, type_name, unpack},
};
use crate::{
    config::listener::{
        FilterChain, FilterChainMatch, Listener, ProxyProtocol, Terminal, TrafficDirection,
        TransportMatch,
    },
    settings::Ports,
};

/// How long Envoy looks at the first bytes when it is not told.
const DEFAULT_INSPECT_TIMEOUT: Duration = Duration::from_secs(15);

/// `envoy.config.listener.v3.Listener`.
pub fn listener(context: &Context<'_>, listener: &PbListener) -> Result<Listener, Invalid> {
    refuse_all(&[
        (listener.fcds_config.is_some(), "fcds_config"),
        (listener.filter_chain_matcher.is_some(), "filter_chain_matcher"),
        (listener.udp_listener_config.is_some(), "udp_listener_config"),
        (listener.api_listener.is_some(), "api_listener"),
        (flag(listener.transparent.as_ref()), "transparent"),
        (!listener.socket_options.is_empty(), "socket_options"),
        (listener.listener_specifier.is_some(), "internal_listener"),
    ])?;
    let direction = match PbDirection::try_from(listener.traffic_direction) {
        Ok(PbDirection::Inbound) => TrafficDirection::Inbound,
        Ok(PbDirection::Outbound) => TrafficDirection::Outbound,
        _ if listener.name == VIRTUAL_INBOUND => TrafficDirection::Inbound,
        _ => TrafficDirection::Outbound,
    };
    let mut looks = Looks::default();
    for (index, filter) in listener.listener_filters.iter().enumerate() {
        listener_filter(context, filter, &mut looks).at_index("listener_filters", index)?;
    }
    let chains = each(&listener.filter_chains, "filter_chains", |chain| {
        filter_chain(context, chain, direction).map(Arc::new)
    })?;
    let default_chain = listener
        .default_filter_chain
        .as_ref()
        .map(|chain| filter_chain(context, chain, direction).map(Arc::new))
        .transpose()
        .at("default_filter_chain")?;
    if chains.is_empty() && default_chain.is_none() {
        return Err(Invalid::missing("filter_chains"));
    }
    Ok(Listener {
        name: context.intern(&listener.name),
        binds: binds(context, listener)?,
        direction,
        proxy_protocol: looks.proxy_protocol,
        inspect_tls: looks.tls,
        inspect_http: looks.http,
        inspect_timeout: timeout_or(
            listener.listener_filters_timeout.as_ref(),
            "listener_filters_timeout",
            Some(DEFAULT_INSPECT_TIMEOUT),
        )?,
        continue_on_timeout: listener.continue_on_listener_filters_timeout,
        chains,
        default_chain,
        access_logs: access_log::access_logs(context, &listener.access_log)?,
    })
}

/// The addresses to bind. The proxy's own ports may be others on this workload than the control plane thinks.
fn binds(context: &Context<'_>, listener: &PbListener) -> Result<Vec<SocketAddr>, Invalid> {
    let ports = context.ports;
    if flag(listener.use_original_dst.as_ref()) {
        // What is captured comes to the pod's own address, or to a loopback one.
        let port = match listener.name.as_str() {
            VIRTUAL_INBOUND => ports.inbound,
            VIRTUAL_OUTBOUND => ports.outbound,
            _ => return Err(Invalid::unsupported("use_original_dst")),
        };
        let every = context.own_addresses.iter().map(|address| SocketAddr::new(*address, port));
        return Ok(every.collect());
    }
    if listener.bind_to_port.as_ref().is_some_and(|bind| !bind.value) {
        return Ok(Vec::new());
    }
    let usual = Ports::default();
    let (from, to) = match listener.name.as_str() {
        VIRTUAL_INBOUND => (usual.inbound, ports.inbound),
        HTTP_PROXY => (usual.http_proxy, ports.http_proxy),
        _ => (0, 0),
    };
    let address = listener.address.as_ref().ok_or_else(|| Invalid::missing("address"))?;
    let mut main = socket_addr(address).at("address")?;
    if main.port() == from {
        main.set_port(to);
    }
    let mut binds = vec![main];
    for (index, additional) in listener.additional_addresses.iter().enumerate() {
        let bind = additional
            .address
            .as_ref()
            .map_or_else(|| Err(Invalid::missing("address")), |a| socket_addr(a).at("address"))
            .at_index("additional_addresses", index)?;
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    Ok(binds)
}

/// What first bytes are looked at for.
#[derive(Default)]
struct Looks {
    proxy_protocol: Option<ProxyProtocol>,
    tls: bool,
    http: bool,
}

fn listener_filter(
    context: &Context<'_>,
    filter: &ListenerFilter,
    looks: &mut Looks,
) -> Result<(), Invalid> {
    // `filter_disabled` spares connections that no chain looks at; those are spared here anyway.
    let config = match &filter.config_type {
        Some(listener_filter::ConfigType::TypedConfig(config)) => config,
        Some(listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(Invalid::unsupported("config_discovery"));
        }
        None => return Err(Invalid::missing("typed_config")),
    };
    if is::<OriginalDst>(config) && !context.standalone {
        // The kernel is asked of every captured connection.
    } else if is::<PbProxyProtocol>(config) {
        if looks.tls || looks.http || looks.proxy_protocol.is_some() {
            return Err(Invalid::value(type_name(config), "once, before the inspectors"))
                .at("typed_config");
        }
        looks.proxy_protocol = Some(proxy_protocol(&unpack(config).at("typed_config")?)?);
    } else if is::<TlsInspector>(config) {
        looks.tls = true;
    } else if is::<HttpInspector>(config) {
        looks.http = true;
    } else {
        return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
    }
    Ok(())
}

fn proxy_protocol(config: &PbProxyProtocol) -> Result<ProxyProtocol, Invalid> {
    refuse_all(&[
        (!config.rules.is_empty(), "rules"),
        (config.pass_through_tlvs.is_some(), "pass_through_tlvs"),
        (config.tlv_location != 0, "tlv_location"),
    ])
    .at("typed_config")?;
    let taken = |version: Version| !config.disallowed_versions.contains(&(version as i32));
    Ok(ProxyProtocol {
        optional: config.allow_requests_without_proxy_protocol,
        v1: taken(Version::V1),
        v2: taken(Version::V2),
    })
}

fn filter_chain(
    context: &Context<'_>,
    chain: &PbChain,
    direction: TrafficDirection,
) -> Result<FilterChain, Invalid> {
    refuse(flag(chain.use_proxy_proto.as_ref()), "use_proxy_proto")?;
    let matches = match &chain.filter_chain_match {
        Some(matches) => chain_match(matches).at("filter_chain_match")?,
        None => FilterChainMatch::default(),
    };
    let tls = match &chain.transport_socket {
        Some(socket) => tls::downstream(context, socket).at("transport_socket")?.map(Arc::new),
        None => None,
    };
    let Some((last, others)) = chain.filters.split_last() else {
        return Err(Invalid::missing("filters"));
    };
    let rbac = each(others, "filters", |filter| {
        let config = config(filter)?;
        if !is::<PbRbac>(config) {
            return Err(Invalid::unsupported_value(type_name(config))).at("typed_config");
        }
        rbac::network(config).map(Arc::new).at("typed_config")
    })?;
    Ok(FilterChain {
        name: chain.name.as_str().into(),
        matches,
        tls,
        handshake_timeout: timeout_or(
            chain.transport_socket_connect_timeout.as_ref(),
            "transport_socket_connect_timeout",
            None,
        )?,
        rbac,
        terminal: terminal(context, last, direction).at_index("filters", others.len())?,
    })
}

fn config(filter: &Filter) -> Result<&weft_api::xds::google::protobuf::Any, Invalid> {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => Ok(config),
        Some(filter::ConfigType::ConfigDiscovery(_)) => {
            Err(Invalid::unsupported("config_discovery"))
        }
        None => Err(Invalid::missing("typed_config")),
    }
}

fn terminal(
    context: &Context<'_>,
    filter: &Filter,
    direction: TrafficDirection,
) -> Result<Terminal, Invalid> {
    let config = config(filter)?;
    if is::<HttpConnectionManager>(config) {
        let manager = unpack(config)
            .and_then(|manager| http::connection_manager(context, &manager, direction))
            .at("typed_config")?;
        return Ok(Terminal::Http(Arc::new(manager)));
    }
    if is::<TcpProxy>(config) {
        let proxy =
            unpack(config).and_then(|proxy| tcp::tcp_proxy(context, &proxy)).at("typed_config")?;
        return Ok(Terminal::Tcp(Arc::new(proxy)));
    }
    Err(Invalid::unsupported_value(type_name(config))).at("typed_config")
}

fn chain_match(matches: &PbMatch) -> Result<FilterChainMatch, Invalid> {
    refuse_all(&[
        (!matches.address_suffix.is_empty(), "address_suffix"),
        (matches.suffix_len.is_some(), "suffix_len"),
        (!matches.direct_source_prefix_ranges.is_empty(), "direct_source_prefix_ranges"),
        (matches.source_type != 0, "source_type"),
        (!matches.source_ports.is_empty(), "source_ports"),
    ])?;
    let transport = match matches.transport_protocol.as_str() {
        "" => None,
        "tls" => Some(TransportMatch::Tls),
        "raw_buffer" => Some(TransportMatch::Raw),
        other => return Err(Invalid::unsupported_value(other)).at("transport_protocol"),
    };
    let server_names = each(&matches.server_names, "server_names", |name| {
        let lower = name.to_ascii_lowercase();
        let plain = lower.strip_prefix("*.").unwrap_or(&lower);
        if plain.is_empty() || plain.contains('*') {
            return Err(Invalid::value(name, "a name or *.suffix"));
        }
        Ok(lower.into())
    })?;
    Ok(FilterChainMatch {
        destination_port: matches
            .destination_port
            .as_ref()
            .map(|value| port(value.value))
            .transpose()
            .at("destination_port")?,
        destination_ranges: each(&matches.prefix_ranges, "prefix_ranges", cidr)?,
        source_ranges: each(&matches.source_prefix_ranges, "source_prefix_ranges", cidr)?,
        server_names,
        transport,
        application_protocols: matches
            .application_protocols
            .iter()
            .map(|protocol| protocol.as_bytes().into())
            .collect(),
    })
}
