output "cluster" {
  description = "The cluster's name."
  value       = aws_ecs_cluster.this.name
}

output "statements" {
  description = "What the roles of the containers may do."
  value       = { worker = module.task.statements, worker-start = module.execution.statements }
}

output "services" {
  description = "The services as they are, by lane."
  value       = aws_ecs_service.this
}

output "tasks" {
  description = "What their containers are, by lane."
  value       = aws_ecs_task_definition.this
}

output "fleet" {
  description = "The fleet of the spot lane as it is, if it runs on EC2."
  value       = one(aws_autoscaling_group.fleet[*])
}

output "capacity" {
  description = "What the scaler is told and what it may scale; null when containers are scaled by hand, or there can be none."
  value = !var.settings.scaling || length(local.pools) == 0 ? null : {
    cluster_arn  = aws_ecs_cluster.this.arn
    service_arns = [for service in aws_ecs_service.this : service.id]
    told = jsonencode({
      cluster = aws_ecs_cluster.this.name
      policy  = var.settings.policy
      grace_s = var.settings.grace_s
      drain_s = var.settings.drain_s
      pools   = local.pools
    })
  }
}
