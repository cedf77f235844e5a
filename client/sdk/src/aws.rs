//! Grids on AWS by their name: the steps run in this process, on the grid's table, bucket and queues, with the rights that the
//! user has there. Needs no API, and no Lambda but those that run the tasks.

use sheaf_api::{ApiError, Code};
use sheaf_aws::{
    AwsPorts,
    direct::{Described, FindError},
};
use sheaf_core::TenantId;
use sheaf_protocol::Service;

use crate::transport::Transport;

pub use sheaf_aws::{
    SdkConfig,
    direct::{Check, Health, check, check_credentials},
    load_config,
};

/// The way to a grid.
pub(crate) async fn transport(config: &SdkConfig, name: &str) -> Result<Transport, ApiError> {
    let described = Described::find(config, name).await.map_err(|error| unfound(name, error))?;
    let ports = AwsPorts::over(config, &described.settings(name));
    Ok(Transport::aws(Service::new(ports, TenantId::default(), described.grid_view())))
}

fn unfound(name: &str, error: FindError) -> ApiError {
    let hint = format!("`sheaf doctor --grid aws:{name}` says what is wrong");
    let code = match error {
        FindError::Table { may_pass: true, .. } => Code::Unavailable,
        // Refused for what it is: no such table, or not for this user.
        FindError::Table { may_pass: false, .. } | FindError::Malformed { .. } => Code::Invalid,
        FindError::NoGrid { .. } => Code::NotFound,
    };
    ApiError::new(code, error.to_string()).with_hint(hint)
}
