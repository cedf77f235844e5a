//! Functions over a PostgreSQL table of products and their items; `products.sql` beside this crate creates it.
//!
//! Each is one statement, so it happens wholly or not at all. None of them is idempotent by itself: called again after
//! its answer was lost, `clone_product` clones again.

use std::{env, error::Error, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Config, NoTls, types::ToSql};

use crate::Failure;

/// A process serves one invocation at a time, so it opens one; a program that uses this as a library may use a few.
const CONNECTIONS_MAX: usize = 4;
/// How long to wait for the server, and for a free connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to the database, kept across invocations.
pub struct Products {
    pool: Pool,
}

impl Products {
    /// As [`Self::at`], with the URL in the environment's `DATABASE_URL`.
    pub fn from_env() -> Result<Self, Failure> {
        let url = env::var("DATABASE_URL").map_err(database("read DATABASE_URL from the environment"))?;
        Self::at(&url)
    }

    /// The database at a URL like `postgresql://user:password@host:5432/name`, without TLS. Connects when first used,
    /// and again when a connection was lost.
    pub fn at(url: &str) -> Result<Self, Failure> {
        let mut config: Config = url.parse().map_err(database("understand DATABASE_URL"))?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A process may be frozen for hours between two invocations, so a connection is tried before it is used.
        let recycled = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycled))
            .max_size(CONNECTIONS_MAX)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(database("set up connections"))?;
        Ok(Self { pool })
    }

    /// Appends a copy of each of a product's items to another product, at `coef` times its price, and answers how many
    /// there were. `coef` is a JSON number as it was written, and reaches the database with every digit.
    pub async fn clone_product(&self, product_id: i32, new_product_id: i32, coef: &str) -> Result<u64, Failure> {
        let insert = "insert into product_items (product_id, name, price)
                      select $2, name, price * $3::text::numeric from product_items where product_id = $1 order by id";
        self.execute("clone a product", insert, &[&product_id, &new_product_id, &coef]).await
    }

    /// The sum of a product's prices, rounded half away from zero; 0 for a product without items.
    pub async fn sum_of_prices(&self, product_id: i32) -> Result<i64, Failure> {
        let select = "select coalesce(round(sum(price)), 0)::bigint from product_items where product_id = $1";
        let failed = "sum up a product's prices";
        let client = self.connection().await?;
        let statement = client.prepare_cached(select).await.map_err(database(failed))?;
        let row = client.query_one(&statement, &[&product_id]).await.map_err(database(failed))?;
        row.try_get(0).map_err(database(failed))
    }

    /// Deletes a product's items, if there are any.
    pub async fn delete_product(&self, product_id: i32) -> Result<String, Failure> {
        let delete = "delete from product_items where product_id = $1";
        self.execute("delete a product", delete, &[&product_id]).await?;
        Ok(format!("Product {product_id} was successefully deleted"))
    }

    /// Runs a statement and answers how many rows it changed.
    async fn execute(
        &self,
        action: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        let client = self.connection().await?;
        let statement = client.prepare_cached(statement).await.map_err(database(action))?;
        client.execute(&statement, parameters).await.map_err(database(action))
    }

    async fn connection(&self) -> Result<Object, Failure> {
        self.pool.get().await.map_err(database("connect to the database"))
    }
}

/// Turns a driver's error into ours, with what was tried.
fn database<E: Error + Send + Sync + 'static>(action: &'static str) -> impl Fn(E) -> Failure {
    move |source| Failure::Database { action, source: Box::new(source) }
}
