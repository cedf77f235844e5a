//! The services of ECS, on a server that knows them by name.

use sheaf_aws::{
    Services,
    loopback::{create_service, fresh_account, skipped},
};
use sheaf_protocol::StoreError;

#[tokio::test]
async fn services_are_described_in_order_and_scaled() {
    let (config, _) = match fresh_account().await {
        Ok(fresh) => fresh,
        Err(reason) => return skipped(reason),
    };
    let names = ["night-spot", "night-on-demand"].map(str::to_owned);
    for name in &names {
        create_service(&config, "night", name).await;
    }
    let services = Services::over(&config, "night");
    let desired = async || {
        let found = services.describe(&names).await.expect("described");
        found.into_iter().map(|service| (service.name, service.desired)).collect::<Vec<_>>()
    };
    let [spot, on_demand] = names.clone();
    assert_eq!(desired().await, [(spot.clone(), 0), (on_demand.clone(), 0)]);
    for _ in 0..2 {
        services.set_desired(&on_demand, 3).await.expect("set");
        assert_eq!(desired().await, [(spot.clone(), 0), (on_demand.clone(), 3)]);
    }
    services.set_desired(&on_demand, 0).await.expect("set");
    assert_eq!(services.containers(&on_demand).await.expect("listed"), [], "the server runs none");

    let missing = services.describe(&[spot, "night-gone".to_owned()]).await.expect_err("there is none");
    assert!(matches!(&missing, StoreError::Stopped { detail } if detail.contains("night-gone")), "{missing}");
    let missing = services.set_desired("night-gone", 1).await.expect_err("there is none");
    assert!(matches!(missing, StoreError::Stopped { .. }), "{missing}");
}
