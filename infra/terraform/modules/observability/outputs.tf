output "alarms" {
  description = "The alarms as they are."
  value = merge(
    { for name, alarm in aws_cloudwatch_metric_alarm.own : name => alarm },
    { for name, alarm in aws_cloudwatch_metric_alarm.dead : name => alarm },
    { for name, alarm in aws_cloudwatch_metric_alarm.lambda : "lambda-${name}" => alarm },
  )
}
