//! What a destroyed grid has left behind.

/// Fails if anything is left that bears the grid's name.
pub(crate) async fn check(grid: &str) -> anyhow::Result<()> {
    let left = sheaf_aws::operate::leftovers(grid).await?;
    anyhow::ensure!(left.is_empty(), "destroying {grid} has left {}", left.join(", "));
    println!("nothing is left of {grid}");
    Ok(())
}
