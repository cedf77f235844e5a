# The number of containers follows the work that is there, in flight included, so that none is taken away from under its task
# as long as others are idle: the first one for any work at all, another for each further seconds_per_worker, in steps that
# double. How many seconds of work there are is told by the grid, which has estimates; a message of a lane's queues, waiting or
# in flight, counts for a second at least, so that there is a container for it whether or not anything is estimated.

locals {
  queries = { for lane in keys(local.scaled) : lane => merge(
    { for pair in setproduct(["high", "normal", "low"], ["Visible", "NotVisible"]) : lower("${pair[0]}_${pair[1]}") => {
      expression = null
      metric = {
        namespace  = "AWS/SQS"
        name       = "ApproximateNumberOfMessages${pair[1]}"
        dimensions = { QueueName = var.lanes["${lane}-${pair[0]}"].name }
      }
    } },
    {
      told = { expression = null, metric = { namespace = "Sheaf", name = "work_seconds", dimensions = { grid = var.grid, lane = lane } } }
      work = {
        expression = "MAX([FILL(told,0), ${join("+", [for pair in setproduct(["high", "normal", "low"], ["Visible", "NotVisible"]) : "FILL(${lower("${pair[0]}_${pair[1]}")},0)"])}])"
        metric     = null
      }
    },
  ) }
  scaled   = { for lane, service in local.services : lane => service if var.settings.scaling }
  doubling = { for lane, service in local.scaled : lane => [for n in range(0, 10) : pow(2, n) if pow(2, n) < service.max] }
  # Bounds are distances from the alarm's threshold, 0.
  steps = { for lane, service in local.scaled : lane => concat(
    [for n in local.doubling[lane] : { from = n == 1 ? 0 : n / 2 * var.settings.seconds_per_worker, to = n * var.settings.seconds_per_worker, capacity = n }],
    [{
      from     = length(local.doubling[lane]) == 0 ? 0 : pow(2, length(local.doubling[lane]) - 1) * var.settings.seconds_per_worker
      to       = null
      capacity = service.max
    }],
  ) }
}

resource "aws_appautoscaling_target" "this" {
  for_each = local.scaled

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this[each.key].name}"
  min_capacity       = 0
  max_capacity       = each.value.max
}

resource "aws_appautoscaling_policy" "work" {
  for_each = local.scaled

  name               = "${var.grid}-${each.key}-work"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ExactCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = 60

    dynamic "step_adjustment" {
      for_each = local.steps[each.key]
      content {
        metric_interval_lower_bound = step_adjustment.value.from
        metric_interval_upper_bound = step_adjustment.value.to
        scaling_adjustment          = step_adjustment.value.capacity
      }
    }
  }
}

resource "aws_appautoscaling_policy" "idle" {
  for_each = local.scaled

  name               = "${var.grid}-${each.key}-idle"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ExactCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = 60

    step_adjustment {
      metric_interval_upper_bound = 0
      scaling_adjustment          = 0
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "work" {
  for_each = local.scaled

  alarm_name          = "${var.grid}-${each.key}-work"
  alarm_description   = "There is work for the ${each.key} lane"
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.work[each.key].arn]

  dynamic "metric_query" {
    for_each = local.queries[each.key]
    content {
      id          = metric_query.key
      expression  = metric_query.value.expression
      label       = metric_query.key
      return_data = metric_query.key == "work"

      dynamic "metric" {
        for_each = metric_query.value.metric[*]
        content {
          namespace   = metric.value.namespace
          metric_name = metric.value.name
          dimensions  = metric.value.dimensions
          stat        = "Maximum"
          period      = 60
        }
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "idle" {
  for_each = local.scaled

  alarm_name          = "${var.grid}-${each.key}-idle"
  alarm_description   = "There has been no work for the ${each.key} lane for five minutes"
  evaluation_periods  = 5
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_appautoscaling_policy.idle[each.key].arn]

  dynamic "metric_query" {
    for_each = local.queries[each.key]
    content {
      id          = metric_query.key
      expression  = metric_query.value.expression
      label       = metric_query.key
      return_data = metric_query.key == "work"

      dynamic "metric" {
        for_each = metric_query.value.metric[*]
        content {
          namespace   = metric.value.namespace
          metric_name = metric.value.name
          dimensions  = metric.value.dimensions
          stat        = "Maximum"
          period      = 60
        }
      }
    }
  }
}
