//! The functions over products, on a PostgreSQL server that this test starts.

mod postgres;

use lambda_runtime::Diagnostic;
use postgres::Postgres;
use serde_json::value::RawValue;
use sheaf_examples::{Failure, Functions, products::Products};

const SCHEMA: &str = include_str!("../products.sql");

#[tokio::test]
async fn products_are_cloned_summed_and_deleted() {
    let Some(server) = Postgres::start() else { return };
    server.sql(SCHEMA);
    let products = Products::at(&server.url()).expect("a URL");

    for (product, sum) in [(1, 15_005), (2, 25_005), (3, 35_005), (4, 0)] {
        assert_eq!(products.sum_of_prices(product).await.expect("a sum"), sum, "product {product}");
    }
    assert_eq!(products.clone_product(1, 100, "1.1").await.expect("a clone"), 1_000);
    assert_eq!(products.sum_of_prices(100).await.expect("a sum"), 16_506, "16,505.5 rounded");
    assert_eq!(products.clone_product(1, 100, "2").await.expect("a clone"), 1_000, "appended");
    assert_eq!(products.sum_of_prices(100).await.expect("a sum"), 46_516, "46,515.5 rounded");
    assert_eq!(products.clone_product(4, 101, "2").await.expect("a clone"), 0, "nothing to clone");
    let deleted = products.delete_product(100).await.expect("a deletion");
    assert_eq!(deleted, "Product 100 was successefully deleted");
    assert_eq!(products.sum_of_prices(100).await.expect("a sum"), 0);
    assert_eq!(server.sql("select count(*) from product_items"), "3000");

    // Every digit of a coefficient arrives, also those that floating point has not.
    products.clone_product(2, 102, "1.00000000000000000001").await.expect("a clone");
    assert_eq!(server.sql("select min(price) from product_items where product_id = 102"), "20.0100000000000000002001");
    products.clone_product(1, 103, "-2.5E-1").await.expect("a clone");
    assert_eq!(products.sum_of_prices(103).await.expect("a sum"), -3_751, "-3,751.25 rounded");

    // Copies keep the order of their originals.
    let names = server.sql("select name from product_items where product_id = 102 order by id");
    let ends = (names.lines().next(), names.lines().last());
    assert_eq!(ends, (Some("Item 1 of product 2"), Some("Item 1000 of product 2")));

    // One connection served all of these calls; when it is lost, another takes its place.
    let ours = "from pg_stat_activity where backend_type = 'client backend' and application_name <> 'psql'";
    assert_eq!(server.sql(&format!("select count(*) {ours}")), "1");
    assert_eq!(server.sql(&format!("select pg_terminate_backend(pid, 10000) {ours}")), "t");
    assert_eq!(products.sum_of_prices(1).await.expect("a sum"), 15_005);

    // What the server refuses says why.
    let refused = told(products.clone_product(1, 104, "1e200000").await);
    assert_eq!(refused.error_type, "Database");
    assert!(refused.error_message.starts_with("cannot clone a product: "), "{}", refused.error_message);
    assert!(refused.error_message.contains("overflow"), "{}", refused.error_message);
    server.sql("drop table product_items");
    let refused = told(products.delete_product(1).await);
    assert!(refused.error_message.contains("product_items"), "{}", refused.error_message);

    // The server goes away between two invocations.
    drop(server);
    let refused = told(products.sum_of_prices(1).await);
    assert_eq!(refused.error_type, "Database");
    assert!(refused.error_message.starts_with("cannot connect to the database: "), "{}", refused.error_message);
}

#[tokio::test]
async fn the_database_has_to_be_there() {
    let refused =
        told(Products::at("postgresql://127.0.0.1:1/nowhere?user=nobody").expect("a URL").delete_product(1).await);
    assert_eq!(refused.error_type, "Database");
    assert!(refused.error_message.contains("refused"), "{}", refused.error_message);
    let refused = told(Products::at("not a url"));
    assert!(refused.error_message.starts_with("cannot understand DATABASE_URL: "), "{}", refused.error_message);
}

/// The arguments are read before the database is needed, so this holds without one.
#[tokio::test]
async fn arguments_are_checked_first() {
    for (name, payload, refusal) in [
        ("clone_product", r#"{"product_id":1,"coef":2}"#, "clone_product: argument new_product_id is missing"),
        (
            "clone_product",
            r#"{"product_id":1,"new_product_id":2,"coef":"two"}"#,
            r#"clone_product: argument coef must be a number, but is "two""#,
        ),
        ("sum_of_prices", "{}", "sum_of_prices: argument product_id is missing"),
        (
            "delete_product",
            r#"{"product_id":2147483648}"#,
            "delete_product: argument product_id must be at most 2147483647, but is 2147483648",
        ),
    ] {
        let payload = RawValue::from_string(payload.into()).expect("JSON");
        let refused = told(Functions::default().call(name, &payload).await);
        assert_eq!((refused.error_type.as_str(), refused.error_message.as_str()), ("InvalidArgument", refusal));
    }
}

/// What a caller is told.
fn told<T>(answered: Result<T, Failure>) -> Diagnostic {
    match answered {
        Ok(_) => panic!("this must fail"),
        Err(failure) => failure.into(),
    }
}
