//! env.json: the machine types there are, their prices, and how many may be held.
//!
//! ```json
//! {"instances": {"c4.large": {"vcpu": 2, "memory": 3.75, "gflops": 25.0,
//!     "prices": {"on-demand": 0.1, "preemptible": 0.0366},
//!     "restrictions": {"limits": {"on-demand": 5, "preemptible": 5},
//!         "markets": {"on-demand": "yes", "preemptible": "yes"},
//!         "burstable": {"burstable": "no", "cpu_credit_rate": 0, "baseline": 0}}}},
//!  "global_limits": {"ec2": {"on-demand": 20, "preemptible": 20}}}
//! ```

use serde::Serialize;

use super::ordered::Fields;
use super::{FormatError, above_zero, at_least};

/// The machine types and what may be held of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Env {
    /// The types, in the order of the file.
    pub instances: Vec<Instance>,
    /// On-demand machines at most, all types together.
    pub on_demand_max: u32,
    /// Spot machines at most, all types together.
    pub spot_max: u32,
}

/// A machine type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    /// Its name.
    pub machine: String,
    /// Tasks it runs at a time.
    pub vcpu: u32,
    /// Its memory; the file has it in gigabytes.
    pub memory_mb: f64,
    /// Its speed as the authors measured it, all cores together; HADS ranks types by it.
    pub gflops: f64,
    /// Dollars an hour. Never 0: that of the other market where this one is closed to the type and has none.
    pub on_demand_price: f64,
    /// Dollars an hour on spot; the same holds.
    pub spot_price: f64,
    /// On-demand machines at most; 0 where the market is closed to the type.
    pub on_demand_max: u32,
    /// Spot machines at most; 0 where the market is closed to the type.
    pub spot_max: u32,
    /// The share of a vCPU it may use for ever, if it is a burstable type.
    pub baseline: Option<f64>,
    /// CPU credits it earns an hour, one being a vCPU for a minute.
    pub credits_per_hour: f64,
}

impl Instance {
    /// HADS's rank: speed for money.
    pub fn rank(&self) -> f64 {
        self.gflops / self.spot_price
    }
}

impl Env {
    /// Reads an env.json.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let file = Fields::parse(text)?;
        let instances = file.object("instances")?;
        let instances = instances.iter().map(|(machine, value)| {
            let fields = Fields::parse(value.get());
            fields.and_then(|f| Instance::read(machine, &f)).map_err(|e| e.under(machine).under("instances"))
        });
        let instances = instances.collect::<Result<Vec<_>, _>>()?;
        if instances.is_empty() {
            return Err(FormatError::new("instances", "expected at least one machine type"));
        }
        let limits = file.object("global_limits")?;
        let limits = limits.object("ec2").map_err(|error| error.under("global_limits"))?;
        let limit = |name| whole(&limits, name).map_err(|error| error.under("ec2").under("global_limits"));
        Ok(Self { instances, on_demand_max: limit("on-demand")?, spot_max: limit("preemptible")? })
    }

    /// The place of the type called `machine`.
    pub fn find(&self, machine: &str) -> Option<usize> {
        self.instances.iter().position(|instance| instance.machine == machine)
    }
}

impl Instance {
    fn read(machine: &str, fields: &Fields) -> Result<Self, FormatError> {
        let vcpu = whole(fields, "vcpu")?;
        if vcpu == 0 {
            return Err(FormatError::new("vcpu", "expected at least 1"));
        }
        let prices = fields.object("prices")?;
        let restrictions = fields.object_or_empty("restrictions")?;
        let inside = |part: &str| restrictions.object_or_empty(part).map_err(|e| e.under("restrictions"));
        let (limits, markets, burstable) = (inside("limits")?, inside("markets")?, inside("burstable")?);
        let of = |part: &'static str| move |error: FormatError| error.under(part).under("restrictions");
        let limit = |name: &str| -> Result<u32, FormatError> {
            let open = markets.yes(name, true).map_err(of("markets"))?;
            if open { whole(&limits, name).map_err(of("limits")) } else { Ok(0) }
        };
        let (on_demand_max, spot_max) = (limit("on-demand")?, limit("preemptible")?);
        // Where no machine may be started, published files have a price of 0, or none: nobody pays it.
        let price = |name: &str, max: u32, other: &str| {
            let closed = || Ok(prices.number_or_none(other)?.filter(|price| *price > 0.0).unwrap_or(1.0));
            let price = match prices.number_or_none(name)? {
                None | Some(0.0) if max == 0 => closed()?,
                None => return Err(FormatError::new(name, "it is missing")),
                Some(price) => price,
            };
            above_zero(name, price)
        };
        let price = |name, max, other| price(name, max, other).map_err(|error| error.under("prices"));
        let bursts = burstable.yes("burstable", false).map_err(of("burstable"))?;
        let credit = |name: &str| -> Result<f64, FormatError> {
            let value = burstable.number_or_none(name).map_err(of("burstable"))?.unwrap_or(0.0);
            at_least(name, value, 0.0).map_err(of("burstable"))
        };
        let baseline = if bursts {
            let baseline = above_zero("baseline", credit("baseline")?).map_err(of("burstable"))?;
            // Written as a share or in percent.
            Some(if baseline > 1.0 { baseline / 100.0 } else { baseline })
        } else {
            None
        };
        Ok(Self {
            machine: machine.to_owned(),
            vcpu,
            memory_mb: above_zero("memory", fields.number("memory")?)? * 1024.0,
            gflops: above_zero("gflops", fields.number("gflops")?)?,
            on_demand_price: price("on-demand", on_demand_max, "preemptible")?,
            spot_price: price("preemptible", spot_max, "on-demand")?,
            on_demand_max,
            spot_max,
            baseline,
            credits_per_hour: credit("cpu_credit_rate")?,
        })
    }
}

/// The whole number in the field `name`.
fn whole(fields: &Fields, name: &str) -> Result<u32, FormatError> {
    let number = fields.number(name)?;
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        Ok(number as u32)
    } else {
        Err(FormatError::new(name, format!("expected a whole number of at least 0, found {number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"instances": {"t3.large": {"vcpu": 2, "memory": 8, "gflops": 20, "prices":
        {"on-demand": "0.0832", "preemptible": 0.025}, "restrictions": {"limits": {"on-demand": 5, "preemptible": 5},
        "markets": {"on-demand": "yes", "preemptible": "no"},
        "burstable": {"burstable": "yes", "cpu_credit_rate": 36, "baseline": 20}}}},
        "global_limits": {"ec2": {"on-demand": 20, "preemptible": 10}}}"#;

    #[test]
    fn reads_a_type() {
        let env = Env::parse(ONE).unwrap();
        let t3 = &env.instances[0];
        assert_eq!((t3.memory_mb, t3.on_demand_price, t3.on_demand_max, t3.spot_max), (8192.0, 0.0832, 5, 0));
        assert_eq!((t3.baseline, t3.credits_per_hour, env.on_demand_max, env.spot_max), (Some(0.2), 36.0, 20, 10));
    }

    #[test]
    fn a_closed_market_needs_neither_price_nor_limit() {
        for (from, to) in [("0.025", "0.0"), (r#", "preemptible": 0.025"#, ""), (r#", "preemptible": 5"#, "")] {
            let env = Env::parse(&ONE.replace(from, to)).unwrap();
            let t3 = &env.instances[0];
            assert!(t3.spot_max == 0 && t3.spot_price > 0.0 && t3.rank().is_finite(), "{t3:?}");
        }
        let open = ONE.replace(r#""preemptible": "no""#, r#""preemptible": "yes""#);
        let said = Env::parse(&open.replace("0.025", "0.0")).unwrap_err().to_string();
        assert_eq!(said, "instances.t3.large.prices.preemptible: expected a number above 0, found 0");
    }

    #[test]
    fn errors_name_the_field() {
        let said = |from: &str, to: &str| Env::parse(&ONE.replace(from, to)).unwrap_err().to_string();
        assert_eq!(said("\"0.0832\"", "0"), "instances.t3.large.prices.on-demand: expected a number above 0, found 0");
        assert_eq!(
            said(r#""vcpu": 2"#, r#""vcpu": 2.5"#),
            "instances.t3.large.vcpu: expected a whole number of at least 0, found 2.5"
        );
        assert_eq!(
            said(r#""no"}"#, r#""maybe"}"#),
            "instances.t3.large.restrictions.markets.preemptible: expected \"yes\" or \"no\", found \"maybe\""
        );
        assert_eq!(said("ec2", "gce"), "global_limits.ec2: it is missing");
        assert_eq!(said(r#""on-demand": 5,"#, ""), "instances.t3.large.restrictions.limits.on-demand: it is missing");
    }
}
