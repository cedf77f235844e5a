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

output "scaling" {
  description = "How many containers there are for how much work, by lane."
  value       = { targets = aws_appautoscaling_target.this, steps = local.steps }
}
