//! A grid found by its name, for clients that work with the rights of their user and without its API.
//!
//! The table is named after the grid. In it, one item says the rest: `infra/terraform` writes it, whoever may read the table
//! may use it.

mod checks;

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use serde::{Deserialize, Serialize};
use sheaf_api::wire::{GridView, LaneView};
use sheaf_core::Lane;
use sheaf_protocol::StoreError;

pub use checks::{Check, Health, check, check_credentials};

use crate::{
    Settings,
    fault::store_error,
    schema::{PK, SK},
    sign::plainly,
};

/// How many tasks a grid runs at once unless it says otherwise. Source: a tenth of an account's concurrency in Lambda.
pub const SLOTS_DEFAULT: u32 = 100;
/// The partition and sort key of the item that describes the grid.
const GRID_KEY: (&str, &str) = ("G", "GRID");
/// Its attribute.
const JSON: &str = "json";
/// What this version of it is called.
const VERSION: u32 = 1;

/// What a deployed grid says of itself in its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The version of this description.
    pub version: u32,
    /// Its bucket.
    pub bucket: String,
    /// What the names of its queues begin with.
    pub queues: String,
    /// Where its API is, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// How many tasks it runs at once; [`SLOTS_DEFAULT`] unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// The lanes that have containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<Lane, LaneView>,
}

/// A grid that cannot be found by its name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The table cannot be read: there is none, or not for this user.
    #[error("the table {table} cannot be read: {reason}")]
    Table {
        /// Its name.
        table: String,
        /// Why.
        reason: String,
        /// Whether it may work later.
        may_pass: bool,
    },
    /// There is such a table, without the item.
    #[error("the table {table} does not describe a grid")]
    NoGrid {
        /// Its name.
        table: String,
    },
    /// The item cannot be understood.
    #[error("what the table {table} says of its grid cannot be read: {reason}")]
    Malformed {
        /// Its name.
        table: String,
        /// Why.
        reason: String,
    },
}

impl Described {
    /// Reads the description of a grid by its name. One read.
    pub async fn find(config: &SdkConfig, name: &str) -> Result<Self, FindError> {
        let table = name.to_owned();
        let get = Client::new(config).get_item().table_name(name).consistent_read(true);
        let get = get.key(PK, s(GRID_KEY.0)).key(SK, s(GRID_KEY.1)).send().await;
        let item = match get {
            Ok(found) => found.item,
            Err(error) => {
                let reason = plainly(&error);
                let may_pass = !matches!(store_error(error), StoreError::Stopped { .. });
                return Err(FindError::Table { table, reason, may_pass });
            }
        };
        let json = item.as_ref().and_then(|item| item.get(JSON)?.as_s().ok());
        let Some(json) = json else { return Err(FindError::NoGrid { table }) };
        let described: Self = match serde_json::from_str(json) {
            Ok(described) => described,
            Err(error) => return Err(FindError::Malformed { table, reason: error.to_string() }),
        };
        if described.version != VERSION {
            let reason = format!("it is of version {}, this program knows {VERSION}", described.version);
            return Err(FindError::Malformed { table, reason });
        }
        Ok(described)
    }

    /// Writes it, as `infra/terraform` does. One write.
    pub async fn write(&self, config: &SdkConfig, name: &str) -> Result<(), StoreError> {
        let json = serde_json::to_string(self).expect("texts and numbers become JSON");
        let put = Client::new(config).put_item().table_name(name).item(PK, s(GRID_KEY.0)).item(SK, s(GRID_KEY.1));
        put.item(JSON, s(&json)).send().await.map(drop).map_err(store_error)
    }

    /// Where state, bytes and hints of the grid of this name are.
    pub fn settings(&self, name: &str) -> Settings {
        Settings { table: name.to_owned(), bucket: self.bucket.clone(), queues: self.queues.clone() }
    }

    /// What it says of itself to clients.
    pub fn grid_view(&self) -> GridView {
        grid_view(self.slots.unwrap_or(SLOTS_DEFAULT), self.lanes.clone())
    }
}

/// What a grid on AWS says of itself.
pub fn grid_view(slots: u32, lanes: BTreeMap<Lane, LaneView>) -> GridView {
    let (version, backend) = (env!("CARGO_PKG_VERSION").to_owned(), "aws".to_owned());
    GridView { version, backend, directory: None, slots, lanes, durable: true, syncs: None }
}

fn s(text: &str) -> aws_sdk_dynamodb::types::AttributeValue {
    aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned())
}
