//! Handlers of the guest's network, between the protocol's texts and numbers.

use protocols::rpc::kata::{agent as pb, types};
use sandbox::network::{HardwareAddress, Interface, Neighbour, Network, Prefix, Route};

use super::KataAgent;
use crate::error::AgentError;

impl KataAgent {
    fn network(&self) -> Result<Network, AgentError> {
        Ok(Network::open(&self.roots, self.config.device_time)?)
    }

    pub(super) async fn update_interface(
        &self,
        request: pb::UpdateInterfaceRequest,
    ) -> Result<types::Interface, AgentError> {
        let asked = request.interface.into_option();
        let asked = asked.ok_or(AgentError::Request { field: "interface", what: "is missing" })?;
        let asked = interface(asked)?;
        tracing::info!(interface = ?asked, "the host configures an interface");
        let updated = self.network()?.update_interface(&asked).await?;
        Ok(interface_message(updated))
    }

    pub(super) async fn list_interfaces(&self, _: pb::ListInterfacesRequest) -> Result<pb::Interfaces, AgentError> {
        let all = self.network()?.interfaces().await?;
        Ok(pb::Interfaces { Interfaces: all.into_iter().map(interface_message).collect(), ..Default::default() })
    }

    pub(super) async fn update_routes(&self, request: pb::UpdateRoutesRequest) -> Result<pb::Routes, AgentError> {
        let routes = request.routes.into_option().unwrap_or_default().Routes;
        let routes = routes.into_iter().map(route).collect::<Result<Vec<_>, _>>()?;
        tracing::info!(?routes, "the host sets the routes");
        Ok(routes_message(self.network()?.update_routes(&routes).await?))
    }

    pub(super) async fn list_routes(&self, _: pb::ListRoutesRequest) -> Result<pb::Routes, AgentError> {
        Ok(routes_message(self.network()?.routes().await?))
    }

    pub(super) async fn add_arp_neighbors(&self, request: pb::AddARPNeighborsRequest) -> Result<pb::Empty, AgentError> {
        let neighbours = request.neighbors.into_option().unwrap_or_default().ARPNeighbors;
        let neighbours = neighbours.into_iter().map(neighbour).collect::<Result<Vec<_>, _>>()?;
        self.network()?.add_neighbours(&neighbours).await?;
        Ok(pb::Empty::default())
    }
}

fn interface(asked: types::Interface) -> Result<Interface, AgentError> {
    let addresses = asked.IPAddresses.iter().map(|ip| Prefix::of(&ip.address, &ip.mask));
    let hardware = Some(asked.hwAddr.as_str()).filter(|text| !text.is_empty());
    Ok(Interface {
        addresses: addresses.collect::<Result<_, _>>()?,
        hardware_address: hardware.map(HardwareAddress::parse).transpose()?,
        name: asked.name,
        mtu: asked.mtu,
        device_path: asked.devicePath,
        kind: asked.type_,
        flags: asked.raw_flags,
    })
}

fn interface_message(interface: Interface) -> types::Interface {
    let address = |prefix: &Prefix| types::IPAddress {
        family: family(prefix.address.is_ipv6()).into(),
        address: prefix.address.to_string(),
        mask: prefix.length.to_string(),
        ..Default::default()
    };
    types::Interface {
        device: interface.name.clone(),
        IPAddresses: interface.addresses.iter().map(address).collect(),
        name: interface.name,
        mtu: interface.mtu,
        hwAddr: interface.hardware_address.map(|address| address.to_string()).unwrap_or_default(),
        devicePath: interface.device_path,
        type_: interface.kind,
        raw_flags: interface.flags,
        ..Default::default()
    }
}

const fn family(v6: bool) -> types::IPFamily {
    if v6 { types::IPFamily::v6 } else { types::IPFamily::v4 }
}

fn address(field: &'static str, text: &str) -> Result<Option<std::net::IpAddr>, AgentError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| AgentError::Request { field, what: "is no IP address" })
}

fn route(asked: types::Route) -> Result<Route, AgentError> {
    let v6 = asked.family.enum_value() == Ok(types::IPFamily::v6);
    // No destination is the default route.
    let destination = if asked.dest.is_empty() { Prefix::everything(v6) } else { Prefix::parse(&asked.dest)? };
    Ok(Route {
        destination,
        gateway: address("gateway", &asked.gateway)?,
        source: address("source", &asked.source)?,
        scope: u8::try_from(asked.scope).map_err(|_| AgentError::Request { field: "scope", what: "is none" })?,
        device: asked.device,
        flags: asked.flags,
        mtu: asked.mtu,
    })
}

fn routes_message(routes: Vec<Route>) -> pb::Routes {
    let message = |route: Route| types::Route {
        family: family(route.destination.address.is_ipv6()).into(),
        dest: if route.destination.length == 0 { String::new() } else { route.destination.to_string() },
        gateway: route.gateway.map(|address| address.to_string()).unwrap_or_default(),
        source: route.source.map(|address| address.to_string()).unwrap_or_default(),
        scope: route.scope.into(),
        device: route.device,
        flags: route.flags,
        mtu: route.mtu,
        ..Default::default()
    };
    pb::Routes { Routes: routes.into_iter().map(message).collect(), ..Default::default() }
}

fn neighbour(asked: types::ARPNeighbor) -> Result<Neighbour, AgentError> {
    let ip = asked.toIPAddress.into_option().unwrap_or_default();
    let missing = AgentError::Request { field: "toIPAddress", what: "is missing" };
    Ok(Neighbour {
        address: address("toIPAddress", &ip.address)?.ok_or(missing)?,
        device: asked.device,
        hardware_address: HardwareAddress::parse(&asked.lladdr)?,
    })
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;

    use super::*;

    #[test]
    fn an_interface_goes_there_and_back() {
        let ip = types::IPAddress { address: "10.0.0.7".to_owned(), mask: "24".to_owned(), ..Default::default() };
        let asked = types::Interface {
            device: "eth0".to_owned(),
            name: "eth0".to_owned(),
            IPAddresses: vec![ip],
            mtu: 1450,
            hwAddr: "02:00:00:00:00:01".to_owned(),
            ..Default::default()
        };
        assert_eq!(interface_message(interface(asked.clone()).unwrap()), asked);
        for (name, odd) in [
            ("address", types::IPAddress { address: "10.0.0".to_owned(), mask: "24".to_owned(), ..Default::default() }),
            ("mask", types::IPAddress { address: "10.0.0.1".to_owned(), mask: "33".to_owned(), ..Default::default() }),
        ] {
            let asked = types::Interface { IPAddresses: vec![odd], ..asked.clone() };
            assert!(interface(asked).is_err(), "{name}");
        }
        assert!(interface(types::Interface { hwAddr: "02:00".to_owned(), ..asked }).is_err());
    }

    #[test]
    fn a_route_without_a_destination_is_the_default_route() {
        let asked = types::Route { gateway: "10.0.0.1".to_owned(), device: "eth0".to_owned(), ..Default::default() };
        let default = route(asked.clone()).unwrap();
        assert_eq!(default.destination, Prefix::everything(false));
        assert_eq!(routes_message(vec![default]).Routes, std::slice::from_ref(&asked));
        assert!(route(types::Route { gateway: "nowhere".to_owned(), ..asked.clone() }).is_err());
        assert!(route(types::Route { scope: 256, ..asked }).is_err());
    }

    #[test]
    fn a_neighbour_needs_both_addresses() {
        let ip = types::IPAddress { address: "10.0.0.9".to_owned(), ..Default::default() };
        let asked = types::ARPNeighbor {
            toIPAddress: MessageField::some(ip),
            device: "eth0".to_owned(),
            lladdr: "02:00:00:00:00:09".to_owned(),
            ..Default::default()
        };
        assert!(neighbour(asked.clone()).is_ok());
        assert!(neighbour(types::ARPNeighbor { toIPAddress: MessageField::none(), ..asked.clone() }).is_err());
        assert!(neighbour(types::ARPNeighbor { lladdr: String::new(), ..asked }).is_err());
    }
}
